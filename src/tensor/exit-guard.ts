/**
 * Lets a process end while one of its worker threads computes. The engine's add-on answers the end of its thread in the midst of
 * a run by aborting the whole process; so the main thread waits at its exit until the run is over, and the worker begins no other.
 */
import { workerData } from "node:worker_threads";

/** Places in the shared memory: whether the process ends, and whether the worker computes. */
const [ending, computing] = [0, 1];
/** Longest time that an exit waits, in milliseconds. */
const patience = 10_000;

/** What a worker finds in its `workerData`. */
export interface ExitGuard {
  readonly exitGuard: SharedArrayBuffer;
}

/** For the main thread: shared memory to start a worker with, and what to call when that worker is gone. */
export function guardExit(): ExitGuard & { release(): void } {
  const exitGuard = new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT);
  const state = new Int32Array(exitGuard);
  const wait = () => {
    Atomics.store(state, ending, 1);
    Atomics.wait(state, computing, 1, patience);
  };
  process.on("exit", wait);
  return { exitGuard, release: () => process.off("exit", wait) };
}

/** Computes, and holds up the exit of the process meanwhile; on the main thread it only computes. */
export async function whileComputing<T>(compute: () => Promise<T>): Promise<T> {
  const memory = (workerData as Partial<ExitGuard> | null)?.exitGuard;
  if (!memory) return compute();
  const state = new Int32Array(memory);
  Atomics.store(state, computing, 1);
  // The main thread says that it ends before it looks whether we compute, and we look after saying so: one of us sees the other.
  if (Atomics.load(state, ending) === 1) rest(state);
  try {
    return await compute();
  } finally {
    rest(state);
  }
}

/** The worker does not compute. If the process ends, it does nothing any more. */
function rest(state: Int32Array): void {
  Atomics.store(state, computing, 0);
  Atomics.notify(state, computing);
  if (Atomics.load(state, ending) === 1) Atomics.wait(state, ending, 1);
}
