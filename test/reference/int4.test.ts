/** Language models with 4-bit weights against the same weights dequantised: what is left is the 8-bit arithmetic. */
import { join } from "node:path";
import { describe, test } from "vitest";
import { openCheckpoint } from "../../src/formats/open.ts";
import { createLanguageModel } from "../../src/generation/load.ts";
import { dequantizeBlocks, quantizeBlocks } from "../../src/tensor/quant/blocks.ts";
import { denseMatrix, type WeightSource } from "../../src/tensor/weight-source.ts";
import { expectDeviation, relativeDifference } from "../helpers/deviations.ts";
import { GoldenSet, goldenFolders } from "../helpers/golden-set.ts";

/** Activations are rounded to 8 bits in every product. */
const tolerance = 8e-2;

describe.each(goldenFolders())("%s", (folder) => {
  test("4-bit weights", async () => {
    const set = await GoldenSet.load(folder);
    const checkpoint = await openCheckpoint(join(folder, "llama-safetensors"));
    const config = set.config().llm;
    const ids = set.goldens.dialogue[0]?.segment_ids[0] ?? [];
    const scores = async (source: WeightSource, quantization: "int4" | "float32") => {
      const model = await createLanguageModel(source, config, { quantization });
      const { data } = await model.forward([ids], model.newCache(), "all");
      await model.close();
      return data;
    };
    const found = await scores(checkpoint, "int4");
    const expected = await scores(dequantised(checkpoint), "float32");
    expectDeviation(
      `${set.name}: logits with 4-bit weights (relative)`,
      relativeDifference(found, expected),
      tolerance,
    );
    await checkpoint.close();
    await set.close();
  });
});

/** The matrices as they are after rounding to 4 bits. */
function dequantised(source: WeightSource): WeightSource {
  return {
    path: source.path,
    tensors: source.tensors,
    async readFloat32(name) {
      const values = await source.readFloat32(name);
      const [, columns] = source.tensors.get(name)?.shape ?? [];
      if (columns === undefined || name.includes("embed_tokens")) return values;
      const format = { bits: 4, blockSize: 32 } as const;
      return dequantizeBlocks(quantizeBlocks(values, columns, format), format, columns);
    },
    matrix(name) {
      return denseMatrix(this, name);
    },
  };
}
