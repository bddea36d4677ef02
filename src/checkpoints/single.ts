/** Opens one weight file, whatever its format and name. */
import { inFile, RandomAccessFile } from "./file.ts";
import type { Checkpoint } from "./format.ts";
import { openGguf } from "./gguf.ts";
import { openSafetensors } from "./safetensors.ts";
import { openTorch } from "./torch.ts";

/** @throws Error naming the file if its format is none that we know, or it does not keep to it */
export async function openSingle(path: string): Promise<Checkpoint> {
  const open = await inFile(path, () => recognise(path));
  return open(path);
}

async function recognise(path: string): Promise<(path: string) => Promise<Checkpoint>> {
  const file = await RandomAccessFile.open(path);
  try {
    const head = await file.read(0, Math.min(16, file.size));
    const startsWith = (...bytes: number[]) => bytes.every((byte, i) => head[i] === byte);
    if (startsWith(...asciiBytes("GGUF"))) return openGguf;
    if (startsWith(...asciiBytes("PK"))) return openTorch;
    // A JSON header follows the 8 bytes of its length, which may look like the beginning of a pickle.
    if (head[8] === asciiBytes("{")[0]) return openSafetensors;
    if (startsWith(0x80)) return openTorch;
  } finally {
    await file.close();
  }
  throw new Error("is no weight file; safetensors, PyTorch (.pth, .bin) and GGUF files can be read");
}

function asciiBytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
