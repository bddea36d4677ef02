/** `pull`: downloads a known model into the user's cache, once. */
import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { cacheFolder } from "../files/cache-folder.ts";
import { sha256File } from "../files/digest.ts";
import { type PartialFile, receiveFile } from "../files/partial-file.ts";
import { explainFailure } from "./download.ts";
import { type HubSource, type KnownModel, registry, type WheelSource } from "./registry.ts";
import { fetchFromHub } from "./remote-file.ts";
import { fetchFromWheel } from "./wheel.ts";

export interface PullProgress {
  /** What is being received: the model's file, or the package that holds it. */
  readonly file: string;
  /** Bytes. */
  readonly received: number;
  /** Bytes; undefined if unknown. */
  readonly total: number | undefined;
}

export interface PullOptions {
  /** `cacheFolder()` if not given. */
  readonly cacheFolder?: string;
  readonly onProgress?: (progress: PullProgress) => void;
  /** What has been received stays for the next attempt, as far as that is possible. */
  readonly signal?: AbortSignal;
  /** A mirror of the Hugging Face hub; it is never sent the user's token. */
  readonly hubUrl?: string;
  /** Only look into the cache. */
  readonly offline?: boolean;
}

/**
 * The path of a known model's file, fetched first if it is not in the cache; its SHA-256 has been checked.
 * @throws Error if the name is unknown, or saying why each source failed and where to put the file by hand
 */
export async function pull(name: string, options: PullOptions = {}): Promise<string> {
  const model = registry.get(name);
  if (!model) throw new Error(`unknown model "${name}". Known models: ${[...registry.keys()].join(", ")}`);
  return pullModel(model, options);
}

/** As `pull`, of a model that need not be in the registry. */
export async function pullModel(model: KnownModel, options: PullOptions = {}): Promise<string> {
  const target = join(options.cacheFolder ?? cacheFolder(), "models", model.file);
  if (await isPresent(model, target)) return target;
  if (options.offline)
    throw new Error(`${model.file} is not in the cache, and downloads are disabled. ${byHand(model, target)}`);
  await mkdir(dirname(target), { recursive: true });
  const failures: string[] = [];
  for (const source of model.sources) {
    options.signal?.throwIfAborted();
    try {
      await pullFrom(source, model, target, options);
      return target;
    } catch (error) {
      options.signal?.throwIfAborted();
      // Another process may have been faster, and the system may not let us replace a file in use.
      if (await isPresent(model, target)) return target;
      failures.push(`  ${describe(source)}: ${explainFailure(error)}`);
    }
  }
  throw new Error(
    `cannot download ${model.file} (${model.bytes} bytes):\n${failures.join("\n")}\n${byHand(model, target)}`,
  );
}

async function pullFrom(
  source: HubSource | WheelSource,
  model: KnownModel,
  target: string,
  { onProgress, signal, hubUrl }: PullOptions,
): Promise<void> {
  const report = (file: string, total: number) => (received: number) => onProgress?.({ file, received, total });
  if (source.kind === "hub") {
    const toHub = { hubUrl, signal, onProgress: report(model.file, model.bytes) };
    await receive(model, target, signal, (partial) => fetchFromHub(source, model.bytes, partial, toHub));
  } else {
    const wheel = { folder: dirname(target), signal, onProgress: report(source.file, source.bytes) };
    await fetchFromWheel(source, wheel, (content) =>
      receive(model, target, signal, async (partial) => {
        await partial.restart();
        await partial.append(content, model.bytes);
      }),
    );
  }
  await recordHash(model, target);
}

function receive(
  { sha256 }: KnownModel,
  target: string,
  signal: AbortSignal | undefined,
  fill: (partial: PartialFile) => Promise<void>,
): Promise<void> {
  return receiveFile(target, { digest: { algorithm: "sha256", hex: sha256 }, fill, signal });
}

/** Whether the file is there and right. Its hash, once found right, is remembered beside it. */
async function isPresent(model: KnownModel, target: string): Promise<boolean> {
  const status = await stat(target).catch(() => undefined);
  if (!status?.isFile() || status.size !== model.bytes) return false;
  const recorded = await readFile(hashPath(target), "utf8").catch(() => "");
  if (recorded.startsWith(model.sha256)) return true;
  if ((await sha256File(target)) !== model.sha256) return false;
  await recordHash(model, target);
  return true;
}

/** In the format of sha256sum. Where it cannot be written, the file is hashed again the next time. */
async function recordHash(model: KnownModel, target: string): Promise<void> {
  await writeFile(hashPath(target), `${model.sha256}  ${model.file}\n`).catch(() => undefined);
}

function hashPath(target: string): string {
  return `${target}.sha256`;
}

function byHand(model: KnownModel, target: string): string {
  return `You can also download the file (SHA-256 ${model.sha256}) yourself and save it as ${target}`;
}

function describe(source: HubSource | WheelSource): string {
  return source.kind === "hub" ? `Hugging Face hub, ${source.repo}` : `Python package index, ${source.file}`;
}
