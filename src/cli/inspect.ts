/** `minigpt4 inspect`: lists the tensors and metadata of a weight file. */
import type { Command } from "commander";
import { printable } from "../files/errors.ts";
import { describeTypeUse } from "../formats/gguf/blocks.ts";
import { type Checkpoint, openCheckpoint, type TensorInfo } from "../formats/open.ts";
import type { CommandContext } from "./context.ts";
import { formatBytes } from "./text.ts";

interface InspectFlags {
  readonly json?: boolean;
  readonly filter?: string;
}

export function defineInspect(command: Command, context: CommandContext): void {
  command
    .description(
      "List the format, metadata and tensors of a weight file: safetensors, PyTorch .pth or .bin, GGUF, an index of shards, " +
        "or a folder of these. Only headers are read, and nothing in the file is executed.",
    )
    .argument("<file>", "file or folder")
    .option("--filter <text>", "list only tensors whose name contains this text")
    .option(
      "--json",
      'print one JSON object: {"path", "format", "metadata", "tensors", "parameters", "bytes"}; long metadata is truncated',
    )
    .addHelpText(
      "after",
      `
Examples:
  minigpt4 inspect model.safetensors
  minigpt4 inspect pretrained_minigpt4_7b.pth --filter llama_proj
  minigpt4 inspect vicuna-7b/ --json`,
    )
    .action((path, flags) => inspect(context, path, flags));
}

async function inspect(context: CommandContext, path: string, { json, filter = "" }: InspectFlags): Promise<void> {
  const checkpoint = await openCheckpoint(path);
  try {
    const tensors = [...checkpoint.tensors.values()].filter(({ name }) => name.includes(filter));
    context.print(json ? JSON.stringify(toJson(checkpoint, tensors), null, 2) : toText(checkpoint, tensors, filter));
  } finally {
    await checkpoint.close();
  }
}

function toJson({ path, format, metadata }: Checkpoint, tensors: readonly TensorInfo[]) {
  return {
    path,
    format,
    metadata: shorten(metadata, Number.POSITIVE_INFINITY),
    tensors: tensors.map(({ name, storedType, shape, byteLength }) => ({ name, storedType, shape, byteLength })),
    ...totals(tensors),
  };
}

function totals(tensors: readonly TensorInfo[]) {
  return {
    parameters: tensors.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0),
    bytes: tensors.reduce((sum, { byteLength }) => sum + byteLength, 0),
  };
}

function toText(checkpoint: Checkpoint, tensors: readonly TensorInfo[], filter: string): string {
  const metadata = Object.entries(checkpoint.metadata).map(([key, value]) => [
    printable(key),
    printable(
      cut(
        typeof value === "string" || typeof value === "bigint"
          ? `${value}`
          : (JSON.stringify(shorten(value)) ?? String(value)),
      ),
    ),
  ]);
  const rows = tensors.map(({ name, storedType, shape, byteLength }) => [
    printable(name),
    storedType,
    `[${shape.join(", ")}]`,
    formatBytes(byteLength),
  ]);
  const { parameters, bytes } = totals(tensors);
  const count = filter
    ? `${tensors.length} of ${checkpoint.tensors.size} tensors with "${printable(filter)}" in their name`
    : `${tensors.length} tensors`;
  return [
    `${checkpoint.path}: ${checkpoint.format}`,
    ...section("Metadata", metadata),
    ...section("Tensors", rows, 3),
    ...(checkpoint.format === "gguf"
      ? section("Types, and how --quantization int4 runs their matrices", typeRows(tensors), 1)
      : []),
    "",
    `${count}, ${parameters.toLocaleString("en")} parameters, ${formatBytes(bytes)}`,
  ].join("\n");
}

/** The types of a GGUF file, their bytes, and how their matrices are multiplied. */
function typeRows(tensors: readonly TensorInfo[]): string[][] {
  const bytes = new Map<string, number>();
  for (const { storedType, byteLength } of tensors) bytes.set(storedType, (bytes.get(storedType) ?? 0) + byteLength);
  return [...bytes].map(([type, sum]) => [type, formatBytes(sum), describeTypeUse(type)]);
}

/** A heading and aligned columns; the column with index `right` is aligned to the right. */
function section(heading: string, rows: readonly (readonly string[])[], right?: number): string[] {
  if (rows.length === 0) return [];
  const widths = (rows[0] ?? []).map((_, column) =>
    rows.reduce((width, row) => Math.max(width, row[column]?.length ?? 0), 0),
  );
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => (column === right ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)))
      .join("  ")
      .trimEnd();
  return ["", heading, ...rows.map((row) => `  ${line(row)}`)];
}

const mostItems = 8;
const mostCharacters = 160;
const mostLevels = 4;

/** Truncates untrusted metadata, whose lists may be long or contain themselves. */
function shorten(value: unknown, items = mostItems, levels = mostLevels): unknown {
  if (typeof value === "string") return cut(value);
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  if (typeof value === "bigint") return value.toString();
  if (typeof value !== "object" || value === null) return value;
  if (levels === 0) return "...";
  if (value instanceof Map) return shorten(Object.fromEntries(value), items, levels);
  if (Array.isArray(value) || value instanceof Set || ArrayBuffer.isView(value)) {
    const all = [...(value as Iterable<unknown>)];
    const shown = all.slice(0, mostItems).map((item) => shorten(item, mostItems, levels - 1));
    return all.length > mostItems ? [...shown, `... ${all.length} in total`] : shown;
  }
  const entries = Object.entries(value);
  const shown = entries.slice(0, items).map(([key, item]) => [cut(key), shorten(item, mostItems, levels - 1)]);
  if (entries.length > items) shown.push(["...", `${entries.length} in total`]);
  return Object.fromEntries(shown);
}

function cut(text: string): string {
  return text.length > mostCharacters ? `${text.slice(0, mostCharacters)}... (${text.length} characters)` : text;
}
