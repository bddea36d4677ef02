/** Entry point of the decoder's worker threads. */
import { move } from "piscina";
import { type DecodeTask, decodeImage } from "./decoder.ts";

/** Transfers the pixel values instead of copying them. */
export default async function decode(task: DecodeTask): Promise<unknown> {
  return move(await decodeImage(task));
}
