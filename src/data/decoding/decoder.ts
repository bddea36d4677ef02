/** Worker threads that decode pictures while the engine computes, which blocks the thread that it runs on. */
import { availableParallelism } from "node:os";
import { Piscina } from "piscina";
import { type DecodeTask, decodePicture } from "./decode-picture.ts";

export interface Decoder {
  /** @returns the values of [3, size, size]. @throws Error if it is no picture that can be read */
  decode(task: DecodeTask): Promise<Float32Array>;
  close(): Promise<void>;
}

/** As many workers as leave the engine a core, at most four. */
export function defaultWorkers(): number {
  return Math.max(1, Math.min(4, availableParallelism() - 1));
}

/** @param workers threads; with 0, pictures are decoded on this thread */
export function startDecoder(workers: number): Decoder {
  if (workers === 0) return { decode: decodePicture, close: async () => {} };
  const fromSource = import.meta.url.endsWith(".ts");
  const pool = new Piscina<DecodeTask, Float32Array>({
    filename: new URL(`./decode-worker.${fromSource ? "ts" : "js"}`, import.meta.url).href,
    minThreads: workers,
    maxThreads: workers,
    // Tasks are handed out at once: while the engine computes, nobody is there to hand out the next one.
    concurrentTasksPerWorker: 1024,
    // From its sources the project runs through a loader, of which workers must know.
    ...(fromSource && { execArgv: ["--import", "tsx"] }),
  });
  return { decode: (task) => pool.run(task), close: () => pool.close({ force: true }) };
}
