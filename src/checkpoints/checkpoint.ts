/** Opens weights of any format: one file, several named by an index, or a Hugging Face folder. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { inFile, RandomAccessFile } from "./file.ts";
import type { Checkpoint } from "./format.ts";
import { openGguf } from "./gguf.ts";
import { openSafetensors } from "./safetensors.ts";
import { openSharded } from "./sharded.ts";
import { openTorch } from "./torch.ts";

export type { Checkpoint, TensorInfo } from "./format.ts";
