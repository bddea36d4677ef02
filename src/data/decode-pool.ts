/** Worker threads that decode pictures while the engine computes, which blocks the thread that it runs on. */
import { availableParallelism } from "node:os";
import { Piscina, transferableSymbol, valueSymbol } from "piscina";
import decode, { type DecodeTask } from "./decode-worker.ts";

export interface Decoder {
  /** @returns the values of [3, size, size]. @throws PictureError if it is no picture that can be read */
  decode(task: DecodeTask): Promise<Float32Array>;
  close(): Promise<void>;
}

/** As many workers as leave the engine a core, at most four. */
export function defaultWorkers(): number {
  return Math.max(1, Math.min(4, availableParallelism() - 1));
}

/** @param workers threads; with 0 pictures are decoded on this thread */
export function startDecoder(workers: number): Decoder {
  if (workers === 0) return { decode, close: async () => {} };
  const worker = new URL(
    import.meta.url.endsWith(".ts") ? "./decode-worker.ts" : "./decode-worker.js",
    import.meta.url,
  );
  const pool = new Piscina<DecodeTask, Float32Array>({
    filename: worker.href,
    minThreads: workers,
    maxThreads: workers,
    // From its sources the project runs through a loader, of which workers must know.
    ...(worker.pathname.endsWith(".ts") && { execArgv: ["--import", "tsx"] }),
  });
  return {
    decode: (task) => pool.run(task),
    close: () => pool.close({ force: true }),
  };
}
