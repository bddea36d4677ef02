/** `minigpt4 export`: writes weights as a file for other programs. */
import { existsSync } from "node:fs";
import { mkdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { z } from "zod";
import { printable, quote } from "../files/errors.ts";
import { readJsonFile } from "../files/json-file.ts";
import { type Checkpoint, openCheckpoint, type TensorInfo } from "../formats/open.ts";
import { writeSafetensors } from "../formats/safetensors.ts";
import { writeTorch } from "../formats/torch/write.ts";
import { type DType, type NdArray, ndarray, sizeOf, viewBytes } from "../tensor/array.ts";
import { float32ToFloat16 } from "../tensor/float16.ts";
import type { CommandContext } from "./context.ts";
import { addCommands } from "./lazy-commands.ts";
import { formatBytes } from "./text.ts";

const floatTypes = ["float32", "float16"] as const;
type FloatType = (typeof floatTypes)[number];
const largestFloat16 = 65504;

interface ExportFlags {
  /** Required, but not by the subcommand. */
  readonly output?: string;
  readonly only?: readonly string[];
  readonly dtype?: FloatType;
  readonly force?: boolean;
  readonly json?: boolean;
}

export function defineExport(command: Command, context: CommandContext): void {
  command
    .description(
      'Write weights to one file: a .pth in the form of torch.save({"model": {...}}), which the Python original loads as its ' +
        "ckpt, or a .safetensors. From a model folder only the projection (llama_proj) is exported, unless --only is given.",
    )
    .argument("<file>", "weight file (safetensors, .pth, .bin, GGUF), model folder, or folder of a run")
    .option("-o, --output <file>", "output file; ends in .pth or .safetensors (required)", checkExtension)
    .option(
      "--only <prefix>",
      "export only tensors whose name starts with this prefix (repeatable)",
      (prefix, others?: string[]) => [...(others ?? []), prefix],
    )
    .addOption(
      new Option(
        "--dtype <type>",
        "type of floating-point values (default: float32 in .pth, as stored in .safetensors)",
      ).choices(floatTypes),
    )
    .option("--force", "overwrite an existing file")
    .option("--json", 'print one JSON object: {"path", "tensors", "parameters", "bytes"}')
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 export runs/mine -o projection.pth
  minigpt4 export runs/mine -o trained.safetensors --only llama_proj --only query_tokens --only Qformer`,
    )
    .action((path, flags) => {
      if (flags.output === undefined) command.error("error: required option '-o, --output <file>' not specified");
      return exportWeights(context, path, flags);
    });
  addCommands(command, context, [
    {
      name: "web",
      summary: "write a static web site that runs the model in the browser",
      load: async () => (await import("./export-web.ts")).defineExportWeb,
    },
  ]);
}

function checkExtension(path: string): string {
  if (/\.(pth|safetensors)$/.test(path)) return path;
  throw new InvalidArgumentError("Expected a file name that ends in .pth or .safetensors.");
}

async function exportWeights(
  context: CommandContext,
  path: string,
  { output, only, dtype, force, json }: ExportFlags & { readonly output: string },
): Promise<void> {
  if (existsSync(output) && !force) throw new Error(`${output} already exists; pass --force to overwrite it`);
  const asTorch = output.endsWith(".pth");
  const tensors = await readTensors(path, only, dtype ?? (asTorch ? "float32" : undefined));
  await mkdir(dirname(output), { recursive: true });
  if (asTorch) await writeTorch(output, tensors);
  else await writeSafetensors(output, tensors);
  context.print(json ? JSON.stringify({ path: output, ...summary(tensors) }, null, 2) : toText(output, tensors));
}

/** Reads the selected tensors of a file, a model folder or a run. */
async function readTensors(
  path: string,
  only: readonly string[] | undefined,
  dtype: FloatType | undefined,
): Promise<Record<string, NdArray>> {
  const { files, defaultPrefixes } = await weightFiles(path);
  const prefixes = only ?? defaultPrefixes;
  const tensors = new Map<string, NdArray>();
  for (const file of files) {
    const checkpoint = await openCheckpoint(file);
    try {
      for (const info of checkpoint.tensors.values()) {
        if (!prefixes.some((prefix) => info.name.startsWith(prefix))) continue;
        if (tensors.has(info.name))
          throw new Error(`${file}: tensor ${quote(info.name)} is also in another file of ${path}; expected it once`);
        tensors.set(info.name, await readTensor(checkpoint, info, dtype));
      }
    } finally {
      await checkpoint.close();
    }
  }
  if (tensors.size === 0) {
    throw new Error(
      `${path} has no tensor whose name starts with ${prefixes.map(quote).join(" or ")}; list the names with ` +
        "minigpt4 inspect, and select tensors with --only",
    );
  }
  return Object.fromEntries(tensors);
}

const modelFolderSchema = z.object({ weights: z.record(z.string(), z.string()) });

/** The weight files of a folder or file, and the prefixes of the tensors to export by default. */
async function weightFiles(path: string): Promise<{ files: readonly string[]; defaultPrefixes: readonly string[] }> {
  if (!(await stat(path)).isDirectory()) return { files: [path], defaultPrefixes: [""] };
  const defaultPrefixes = ["llama_proj"];
  const config = join(path, "config.json");
  if (existsSync(config)) {
    // The config.json of a language model has no weights.
    const { data } = modelFolderSchema.safeParse(await readJsonFile(config));
    if (data)
      return { files: [...new Set(Object.values(data.weights))].map((name) => join(path, name)), defaultPrefixes };
  }
  const projection = join(path, "projection.safetensors");
  return existsSync(projection) ? { files: [projection], defaultPrefixes } : { files: [path], defaultPrefixes: [""] };
}

/** Types of safetensors and GGUF files; those of torch files are named as ours. */
const storedTypes: Readonly<Record<string, DType>> = {
  F64: "float64",
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
  I64: "int64",
  I32: "int32",
  I16: "int16",
  I8: "int8",
  U64: "uint64",
  U32: "uint32",
  U16: "uint16",
  U8: "uint8",
  BOOL: "bool",
};

/** Reads a tensor: floating-point values, including quantized ones, as `dtype`; integers and booleans unchanged. */
async function readTensor(
  checkpoint: Checkpoint,
  { name, storedType, shape }: TensorInfo,
  dtype: FloatType | undefined,
): Promise<NdArray> {
  const where = `${checkpoint.path}: tensor ${quote(name)}`;
  const stored = checkpoint.format === "torch" ? (storedType as DType) : storedTypes[storedType];
  const isFloat = !stored || stored.includes("float");
  if (stored && (!isFloat || !dtype || dtype === stored)) {
    return ndarray(stored, shape, viewBytes(stored, await checkpoint.readBytes(name)));
  }
  if (!dtype)
    throw new Error(`${where} is stored as ${storedType}, which cannot be copied; pass --dtype to convert it`);
  const values = await checkpoint.readFloat32(name);
  if (dtype === "float32") return ndarray(dtype, shape, values);
  if (values.some((value) => Math.abs(value) > largestFloat16 && Number.isFinite(value))) {
    throw new Error(`${where} has values above ${largestFloat16}, the maximum of float16; use --dtype float32`);
  }
  return ndarray(dtype, shape, float32ToFloat16(values));
}

function summary(tensors: Readonly<Record<string, NdArray>>) {
  const rows = Object.entries(tensors).map(([name, { dtype, shape, data }]) => ({
    name,
    dtype,
    shape,
    bytes: data.byteLength,
  }));
  return {
    tensors: rows,
    parameters: rows.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
    bytes: rows.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

function toText(path: string, tensors: Readonly<Record<string, NdArray>>): string {
  const { tensors: rows, parameters, bytes } = summary(tensors);
  return [
    path,
    ...rows.map(
      (row) => `  ${printable(row.name)}  ${row.dtype}  [${row.shape.join(", ")}]  ${formatBytes(row.bytes)}`,
    ),
    `${rows.length} tensors, ${parameters.toLocaleString("en")} parameters, ${formatBytes(bytes)}`,
  ].join("\n");
}
