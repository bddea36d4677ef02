/** Exports a model as a static website: the page, and the model that runs in it. */
import { createHash, type Hash, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { cp, type FileHandle, mkdir, open, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { replaceFolder } from "../files/atomic.ts";
import { sha256Hex } from "../files/digest.ts";
import { alignment, type PackedTensor, packTensor, type Rounding } from "../formats/packed.ts";
import { imageOutputs } from "../generation/image-encoder.ts";
import { languageGraph } from "../generation/language-model.ts";
import { resolveContextLength } from "../generation/load.ts";
import type { PullOptions } from "../hub/pull.ts";
import { llamaMatrices } from "../models/llama.ts";
import { imageWeights } from "../models/minigpt4.ts";
import { type ModelFolder, openModelFolder } from "../models/model-folder.ts";
import { type WebModel, type WebModelFile, webModel, webModelFile } from "../models/web-model.ts";
import { Graph } from "../tensor/graph.ts";
import { UsedWeights } from "../tensor/weight-source.ts";
import type { PackedTokenizer } from "../tokenizers/packed.ts";

export interface ExportWebOptions {
  /** The folder of the built page. */
  readonly page: string;
  /** Name of the model. */
  readonly name: string;
  /** With "int4", matrices of the language model that are not in blocks are rounded to 4 bits, other matrices to float16. @default "int4" */
  readonly quantization?: WebModel["quantization"];
  /** Whether to replace an earlier export in the same folder. @default false */
  readonly overwrite?: boolean;
  readonly pull?: PullOptions;
  readonly signal?: AbortSignal;
  /** Called after each tensor. */
  readonly onProgress?: (done: number, total: number) => void;
}

export interface ExportedWeb {
  readonly path: string;
  /** Size of all files in bytes. */
  readonly bytes: number;
  /** Size of the model's files, which the browser downloads, in bytes. */
  readonly modelBytes: number;
}

/**
 * Exports a model. The folder is written under a temporary name and moved when it is complete.
 * @throws Error if the folder already exists, or the page is not built
 */
export async function exportWeb(modelFolder: string, output: string, options: ExportWebOptions): Promise<ExportedWeb> {
  if (!existsSync(join(options.page, "index.html"))) {
    throw new Error(`The web page is not built. Run \`npm run build:web\` in the project's folder first`);
  }
  const path = resolve(output);
  await checkTarget(path, options.overwrite ?? false);
  await mkdir(dirname(path), { recursive: true });
  const id = randomUUID();
  const [partial, former] = [`${path}.${id}.partial`, `${path}.${id}.former`];
  const folder = await openModelFolder(modelFolder, options.pull);
  try {
    await cp(options.page, partial, { recursive: true });
    const page = join(partial, "index.html");
    await writeFile(page, withModel(await readFile(page, "utf8")));
    const model = await writeParts(folder, partial, options);
    await writeFile(join(partial, webModelFile), JSON.stringify(model));
    await replaceFolder(path, partial, former);
    const modelBytes = [model.tokenizer, ...model.weights].reduce((sum, { bytes }) => sum + bytes, 0);
    return { path, bytes: await folderBytes(path), modelBytes };
  } finally {
    await folder.close();
    await rm(partial, { recursive: true, force: true });
  }
}

/** Checks that the folder may be written. @throws Error if it exists and must not be replaced */
async function checkTarget(path: string, overwrite: boolean): Promise<void> {
  if (!existsSync(path)) return;
  const isFolder = (await stat(path)).isDirectory();
  if (isFolder && (await readdir(path)).length === 0) return;
  if (!isFolder || !existsSync(join(path, webModelFile))) {
    throw new Error(`${path} already exists, and is not an exported model; choose another folder`);
  }
  if (!overwrite) throw new Error(`${path} already exists; pass --overwrite to replace it`);
}

/** Adds a content security policy that allows only the folder's own files, and the path of the model. */
function withModel(html: string): string {
  const policy =
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'";
  const head = `<head>
    <meta http-equiv="content-security-policy" content="${policy}" />
    <meta name="minigpt4-model" content="./${webModelFile}" />`;
  if (!html.includes("<head>")) throw new Error("The page's index.html has no <head>; build the page again");
  return html.replace("<head>", head);
}

async function writeParts(folder: ModelFolder, target: string, options: ExportWebOptions): Promise<WebModel> {
  const { quantization = "int4", signal, onProgress } = options;
  const rounds = quantization === "int4";
  const { config, imageSources, llm } = folder;
  const used = {
    encoder: new UsedWeights(imageSources.encoder),
    qformer: new UsedWeights(imageSources.qformer),
    projection: new UsedWeights(imageSources.projection),
    llm: new UsedWeights(llm.checkpoint),
  };
  // The graphs are built only to find out which weights they use.
  const graph = new Graph();
  imageOutputs(graph, imageWeights(graph, used), config);
  languageGraph(used.llm, config.llm);

  const total = Object.values(used).reduce((sum, { names }) => sum + names.size, 0);
  let done = 0;
  const writer = new PartsWriter(target, "weights");
  const pack = async (source: UsedWeights, rounding: (name: string) => Rounding): Promise<PackedTensor[]> => {
    const index: PackedTensor[] = [];
    for (const name of source.names) {
      signal?.throwIfAborted();
      const shape = source.tensors.get(name)?.shape ?? [];
      const { packing, bytes } = await packTensor(source, name, rounding(name));
      index.push({ name, shape, packing, offset: await writer.append(bytes, alignment) });
      onProgress?.(++done, total);
    }
    return index;
  };
  const imageRounding = (): Rounding => (rounds ? "float16" : "none");
  // Input embeddings lose much when rounded to 4 bits.
  const llmRounding = (name: string): Rounding =>
    llamaMatrices.inBlocks(name) && !/embed_tokens/.test(name) ? "blocks" : "float16";
  try {
    const tensors = {
      encoder: await pack(used.encoder, imageRounding),
      qformer: await pack(used.qformer, imageRounding),
      projection: await pack(used.projection, imageRounding),
      llm: await pack(used.llm, rounds ? llmRounding : () => "none"),
    };
    const weights = await writer.end();
    return webModel({
      name: options.name,
      config,
      quantization,
      template: folder.template.name,
      describe: folder.describe,
      contextLength: resolveContextLength(config.llm),
      tensors,
      tokenizer: await writeTokenizer(folder, target),
      weights,
    });
  } finally {
    await writer.end();
  }
}

/** Writes the tokenizer to one file of any size, which is read as a whole. */
async function writeTokenizer(folder: ModelFolder, target: string): Promise<WebModelFile> {
  const name = "tokenizer.bin";
  const bytes = new TextEncoder().encode(JSON.stringify(await packTokenizer(folder)));
  await writeFile(join(target, name), bytes);
  return { name, bytes: bytes.length, sha256: sha256Hex(bytes) };
}

async function packTokenizer({ llm }: ModelFolder): Promise<PackedTokenizer> {
  const { format, metadata, path } = llm.checkpoint;
  if (format === "gguf") {
    const own = Object.entries(metadata).filter(([key]) => key.startsWith("tokenizer.ggml."));
    return { kind: "gguf", metadata: Object.fromEntries(own) };
  }
  const at = (name: string) => join(dirname(path), name);
  if (existsSync(at("tokenizer.json"))) {
    const read = (name: string) => readFile(at(name), "utf8");
    return { kind: "json", tokenizer: await read("tokenizer.json"), config: await read("tokenizer_config.json") };
  }
  return { kind: "sentencepiece", model: await readFile(at("tokenizer.model"), "base64") };
}

async function folderBytes(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  let bytes = 0;
  for (const entry of entries) if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name))).size;
  return bytes;
}

/** A written file. */
export interface WrittenPart {
  readonly name: string;
  readonly bytes: number;
  /** Digest in hexadecimal. */
  readonly sha256: string;
}

/** Default size of a file: GitHub Pages refuses files of 100 MB, some hosts of 50 MB. */
const defaultPartBytes = 48 * 1024 * 1024;

/** Writes a stream of bytes into files of limited size. */
export class PartsWriter {
  private readonly folder: string;
  private readonly stem: string;
  private readonly largest: number;
  private readonly parts: WrittenPart[] = [];
  private open: { readonly file: FileHandle; readonly hash: Hash; bytes: number } | undefined;
  private length = 0;

  /** @param stem the files are called STEM-0.bin, STEM-1.bin, ... */
  constructor(folder: string, stem: string, largest = defaultPartBytes) {
    this.folder = folder;
    this.stem = stem;
    this.largest = largest;
  }

  /** Writes bytes at the next multiple of `alignment`. @returns their offset in the concatenated files */
  async append(bytes: Uint8Array, alignment = 1): Promise<number> {
    const offset = Math.ceil(this.length / alignment) * alignment;
    await this.write(new Uint8Array(offset - this.length));
    await this.write(bytes);
    return offset;
  }

  /** Closes the last file. @returns all written files */
  async end(): Promise<WrittenPart[]> {
    await this.closePart();
    return this.parts;
  }

  private async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const part = await this.part();
      const piece = bytes.subarray(done, done + this.largest - part.bytes);
      await part.file.writeFile(piece);
      part.hash.update(piece);
      part.bytes += piece.length;
      done += piece.length;
      if (part.bytes === this.largest) await this.closePart();
    }
    this.length += bytes.length;
  }

  private async part() {
    const file = this.open?.file ?? (await open(join(this.folder, this.nextName), "wx"));
    this.open ??= { file, hash: createHash("sha256"), bytes: 0 };
    return this.open;
  }

  private async closePart(): Promise<void> {
    if (!this.open) return;
    const { file, hash, bytes } = this.open;
    await file.close();
    this.parts.push({ name: this.nextName, bytes, sha256: hash.digest("hex") });
    this.open = undefined;
  }

  private get nextName(): string {
    return `${this.stem}-${this.parts.length}.bin`;
  }
}
