/** Pictures that are watched during a run, and never trained on. */
import type { FrozenFeatures } from "../data/features/frozen-features.ts";
import type { PictureLoader } from "../data/features/picture-loader.ts";
import type { ProblemReport } from "../data/problems.ts";
import { asItIs } from "../data/views.ts";
import { type LoadedSample, loadOrReport } from "./batch-loader.ts";
import type { NamedArrays } from "./checkpoints.ts";
import type { StageSample } from "./stages/stage.ts";

/** What is measured of weights on watched pictures. */
export interface HeldOut {
  /** The loss under `weights`: the smaller, the better. @throws Error if none of the pictures can be read */
  measure(weights: NamedArrays): Promise<number>;
  release(): Promise<void>;
}

/** Where pictures and their features come from. */
export interface Pictures {
  readonly loader: PictureLoader;
  readonly frozen: FrozenFeatures;
  readonly problems: ProblemReport;
}

/** Loads held-out pictures as they are; broken ones are left out. */
export async function loadHeldOut(
  samples: readonly StageSample[],
  { loader, problems }: Pictures,
): Promise<LoadedSample[]> {
  const loaded = await Promise.all(
    samples.map(async (sample): Promise<LoadedSample[]> => {
      const picture = await loadOrReport(loader, sample.pair, asItIs, problems);
      return picture ? [{ ...sample, picture }] : [];
    }),
  );
  return loaded.flat();
}
