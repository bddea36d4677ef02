/** The interface of a graph that is ready to run, on any runtime, and the validation of its inputs. */
import type { NdArray } from "../tensor/array.ts";
import type { Value } from "../tensor/graph.ts";
import { evaluateDim, formatShape } from "../tensor/shapes.ts";

/** A graph that is ready to run. */
export interface Runner<Output extends string = string> {
  /**
   * Computes all outputs, one call at a time.
   * @param feeds one array for each input of the graph
   */
  run(feeds: Readonly<Record<string, NdArray>>): Promise<Record<Output, NdArray>>;
  /** Frees the runtime's memory. */
  close(): Promise<void>;
}

/** Checks the feeds of a graph. @throws Error with the name of the input that is missing or has another type or shape */
export function checkFeeds(inputs: readonly Value[], feeds: Readonly<Record<string, NdArray>>): void {
  const sizes = new Map<string, number>();
  for (const input of inputs) {
    const array = feeds[input.name];
    if (!array) throw new Error(`Input ${input} is missing; found: ${Object.keys(feeds).join(", ") || "no inputs"}`);
    const fail = () => {
      const bound = [...sizes].map(([name, size]) => `${name} = ${size}`).join(", ");
      throw new Error(`Input ${input}: found ${array.dtype} ${formatShape(array.shape)}${bound && ` (with ${bound})`}`);
    };
    if (array.dtype !== input.dtype || array.shape.length !== input.rank) fail();
    input.shape.forEach((dim, axis) => {
      const size = array.shape[axis] as number;
      if (typeof dim === "string" && !sizes.has(dim)) sizes.set(dim, size);
      if (evaluateDim(dim, sizes) !== size) fail();
    });
  }
}
