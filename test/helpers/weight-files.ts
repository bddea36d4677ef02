/** Files for the tests of this room. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { openCheckpoint } from "../../src/formats/open.ts";

/** What fixtures/make.py wrote. */
export function fixture(name: string): string {
  return new URL(`../formats/fixtures/${name}`, import.meta.url).pathname;
}

export function golden(name: string): string {
  return new URL(`../reference/golden/${name}`, import.meta.url).pathname;
}

/** A folder that is removed after the tests of the file that asks for it. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "checkpoints-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** Writes `parts` (text as latin-1) as one file; its path. */
export function writeParts(path: string, parts: readonly (string | Uint8Array)[]): string {
  writeFileSync(
    path,
    Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part, "latin1") : part))),
  );
  return path;
}

/** Eight bytes, little endian. */
export function uint64(value: number | bigint): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

export function uint32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** Every tensor of a checkpoint as plain data: [shape, values]. */
export async function readAll(path: string): Promise<Record<string, unknown>> {
  const checkpoint = await openCheckpoint(path);
  try {
    const all: Record<string, unknown> = {};
    for (const name of [...checkpoint.tensors.keys()].sort()) {
      all[name] = [checkpoint.tensors.get(name)?.shape, await checkpoint.readFloat32(name)];
    }
    return all;
  } finally {
    await checkpoint.close();
  }
}
