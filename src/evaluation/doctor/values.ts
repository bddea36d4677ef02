/** Whether weights are numbers, and not a hole in a file. */
import type { Checkpoint } from "../../checkpoints/checkpoint.ts";
import { strips } from "../../checkpoints/convert-tensor.ts";
import { sizeOf } from "../../tensor/array.ts";
import type { Findings } from "./finding.ts";

export interface UsedPart {
  readonly checkpoint: Checkpoint;
  readonly names: ReadonlySet<string>;
}

const again = "The file is damaged: fetch it again, or import the model again.";

/** Looks at all tensors that are used. @param onBytes told how many more have been read */
export async function checkValues(
  findings: Findings,
  parts: readonly UsedPart[],
  onBytes: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  for (const { checkpoint, names } of parts) {
    for (const name of names) {
      signal?.throwIfAborted();
      const info = checkpoint.tensors.get(name);
      if (!info) continue;
      const where = `${checkpoint.path}, tensor "${name}"`;
      await findings.attempt("values", async () => {
        let [strange, zeros] = [0, true];
        const look = (values: Float32Array) => {
          // Times zero, only what is infinite or no number is not zero; those are rare enough to be counted afterwards.
          let [probe, sizes] = [0, 0];
          for (let i = 0; i < values.length; i++) {
            const value = values[i] as number;
            probe += value * 0;
            sizes += Math.abs(value);
          }
          if (probe !== 0) strange += values.filter((value) => !Number.isFinite(value)).length;
          if (sizes !== 0) zeros = false;
        };
        // Of blocks only the scales can be no numbers.
        const blocks = checkpoint.blocks?.(name);
        if (blocks) {
          const { scales, minima } = await blocks.load();
          look(scales);
          if (minima) look(minima);
        } else for await (const values of strips(checkpoint, info, 1)) look(values);
        if (strange > 0) findings.fault("values", `${where}: ${strange} values are infinite or no numbers`, again);
        else if (zeros && sizeOf(info.shape) > 1 && info.shape.length > 1)
          findings.fault("values", `${where}: all of its ${sizeOf(info.shape)} values are zero`, again);
      });
      onBytes(info.byteLength);
    }
  }
}
