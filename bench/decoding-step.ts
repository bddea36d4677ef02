/**
 * Our side of the benchmark of decoding, in a process as `MiniGPT4` gives one to its engine. The line "read" reads the whole context anew,
 * "write" writes a block of tokens behind it; the answer is the milliseconds that took. Argument: the JSON of a `DecodingTask`.
 */
import { dirname } from "node:path";
import { createInterface } from "node:readline";
import { openLanguageModel } from "../src/generation/load.ts";
import { openLlama } from "../src/models/llama-folder.ts";
import { type DecodingTask, promptOf, timed, writtenTokens } from "./decoding.ts";

const { path, folder, quantization, threads, context }: DecodingTask = JSON.parse(process.argv[2] as string);
const llm = await openLlama(folder ?? path);
const model = await openLanguageModel(llm, folder ?? dirname(path), { quantization, threads });
await llm.checkpoint.close();
const prompt = promptOf(context);
let cache = model.newCache();

async function read(): Promise<void> {
  cache = model.newCache();
  await model.forward([prompt], cache);
}

/** Greedily. */
async function write(): Promise<void> {
  cache.truncate(context);
  let next = prompt.at(-1) as number;
  for (let i = 0; i < writtenTokens; i++) {
    const { data } = await model.forward([[next]], cache);
    next = 0;
    for (let id = 1; id < data.length; id++) if ((data[id] as number) > (data[next] as number)) next = id;
  }
}

console.log("ready");
for await (const line of createInterface({ input: process.stdin }))
  console.log(await timed(line === "read" ? read : write));
await model.close();
