/** `minigpt4 export`: copies weights into a file that other programs read. */
import { existsSync } from "node:fs";
import { mkdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { z } from "zod";
import { quote } from "../files/file.ts";
import { type Checkpoint, openCheckpoint, type TensorInfo } from "../formats/open.ts";
import { writeSafetensors } from "../formats/safetensors.ts";
import { writeTorch } from "../formats/torch/write.ts";
import { readJson } from "../models/llama-folder.ts";
import { type DType, type NdArray, ndarray, sizeOf, viewBytes } from "../tensor/array.ts";
import { float32ToFloat16 } from "../tensor/float16.ts";
import { registerExportWeb } from "./export-web.ts";
import { formatBytes, printable } from "./text.ts";

const floatTypes = ["float32", "float16"] as const;
type FloatType = (typeof floatTypes)[number];
const largestFloat16 = 65504;

interface ExportFlags {
  /** Required, but not where the subcommand is called. */
  readonly output?: string;
  readonly only?: readonly string[];
  readonly dtype?: FloatType;
  readonly force?: boolean;
  readonly json?: boolean;
}

export function registerExport(program: Command): void {
  const command = program
    .command("export")
    .summary("write weights as .pth for PyTorch or as .safetensors, or a page in which the model runs")
    .description(
      'Copies weights into one file: a .pth as torch.save({"model": {...}}) writes it, which the Python original loads ' +
        "as its ckpt, or a .safetensors. Of a model folder only the projection is taken (llama_proj), unless --only says more.",
    )
    .argument("<file>", "weight file (safetensors, .pth, .bin, GGUF), model folder, or folder of a run")
    .option("-o, --output <file>", "where to write; ends in .pth or .safetensors (required)", knownEnding)
    .option(
      "--only <prefix>",
      "only tensors whose name begins with this; can be repeated",
      (prefix, others?: string[]) => [...(others ?? []), prefix],
    )
    .addOption(
      new Option(
        "--dtype <type>",
        "of floating-point values (default: float32 in .pth, as stored in .safetensors)",
      ).choices(floatTypes),
    )
    .option("--force", "write over a file that is there already")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 export runs/mine -o projection.pth
  minigpt4 export runs/mine -o trained.safetensors --only llama_proj --only query_tokens --only Qformer`,
    )
    .action(exportWeights);
  registerExportWeb(command);
}

function knownEnding(path: string): string {
  if (/\.(pth|safetensors)$/.test(path)) return path;
  throw new InvalidArgumentError("It should end in .pth or .safetensors.");
}

async function exportWeights(
  path: string,
  { output, only, dtype, force, json }: ExportFlags,
  command: Command,
): Promise<void> {
  if (output === undefined) command.error("error: required option '-o, --output <file>' not specified");
  if (existsSync(output) && !force) throw new Error(`${output} exists already; --force writes over it`);
  const asTorch = output.endsWith(".pth");
  const tensors = await readTensors(path, only, dtype ?? (asTorch ? "float32" : undefined));
  await mkdir(dirname(output), { recursive: true });
  if (asTorch) await writeTorch(output, tensors);
  else await writeSafetensors(output, tensors);
  console.log(json ? JSON.stringify({ path: output, ...summary(tensors) }, null, 2) : toText(output, tensors));
}

/** The wanted tensors of all files that `path` stands for. */
async function readTensors(
  path: string,
  only: readonly string[] | undefined,
  dtype: FloatType | undefined,
): Promise<Record<string, NdArray>> {
  const { files, usual } = await weightFiles(path);
  const prefixes = only ?? usual;
  const tensors = new Map<string, NdArray>();
  for (const file of files) {
    const checkpoint = await openCheckpoint(file);
    try {
      for (const info of checkpoint.tensors.values()) {
        if (!prefixes.some((prefix) => info.name.startsWith(prefix))) continue;
        if (tensors.has(info.name))
          throw new Error(`${file}: tensor ${quote(info.name)} is in another file of ${path}, too`);
        tensors.set(info.name, await readTensor(checkpoint, info, dtype));
      }
    } finally {
      await checkpoint.close();
    }
  }
  if (tensors.size === 0) {
    throw new Error(
      `${path} has no tensor whose name begins with ${prefixes.map(quote).join(" or ")}; ` +
        "minigpt4 inspect shows the names of a file, --only chooses",
    );
  }
  return Object.fromEntries(tensors);
}

const modelFolderSchema = z.object({ weights: z.record(z.string(), z.string()) });

/** The weight files of a folder or file, and the beginnings of the names that one usually wants from it. */
async function weightFiles(path: string): Promise<{ files: readonly string[]; usual: readonly string[] }> {
  if (!(await stat(path)).isDirectory()) return { files: [path], usual: [""] };
  const usual = ["llama_proj"];
  const config = join(path, "config.json");
  if (existsSync(config)) {
    // A language model's folder has a config.json, too, but its weights are not named there.
    const { data } = modelFolderSchema.safeParse(await readJson(config));
    if (data) return { files: [...new Set(Object.values(data.weights))].map((name) => join(path, name)), usual };
  }
  const projection = join(path, "projection.safetensors");
  return existsSync(projection) ? { files: [projection], usual } : { files: [path], usual: [""] };
}

/** What safetensors and GGUF call the types; torch files have our own words. */
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

/** Floating-point values, quantised ones included, as `dtype`; whole numbers and truth values stay as they are. */
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
  if (!dtype) throw new Error(`${where} is stored as ${storedType}, which cannot be copied as it is; choose a --dtype`);
  const values = await checkpoint.readFloat32(name);
  if (dtype === "float32") return ndarray(dtype, shape, values);
  if (values.some((value) => Math.abs(value) > largestFloat16 && Number.isFinite(value))) {
    throw new Error(`${where} has values beyond ${largestFloat16}, the largest of float16; use --dtype float32`);
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
