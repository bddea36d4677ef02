/** A graph that is ready to run, on whatever engine: arrays go in and come out. */
import type { NdArray } from "./array.ts";

export interface Runner<Output extends string = string> {
  /**
   * Computes all outputs, one call at a time.
   * @param feeds one array for each input of the graph
   */
  run(feeds: Readonly<Record<string, NdArray>>): Promise<Record<Output, NdArray>>;
  /** Frees the engine's memory. */
  release(): Promise<void>;
}
