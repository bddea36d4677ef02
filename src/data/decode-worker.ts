/** What a worker thread of the decoder runs. */
import { move } from "piscina";
import { type DecodeTask, decodeImage } from "./decoder.ts";

/** The values are handed over, not copied. */
export default async function decode(task: DecodeTask): Promise<unknown> {
  return move(await decodeImage(task));
}
