/**
 * Capabilities that a machine may lack. A test that needs one is skipped there; in CI (`CI=true`) it fails instead, so that no
 * test is skipped unnoticed, unless `MINIGPT4_ALLOW_SKIPS` lists the capability: `MINIGPT4_ALLOW_SKIPS=mount,int8`.
 */
import type { TestContext } from "vitest";

export type Capability =
  /** A processor whose int8 products do not saturate (VNNI, or Arm's dot product). */
  | "int8"
  /** Linux with transparent large pages on request. */
  | "large-pages"
  /** Mounting a small disk, which needs root. */
  | "mount"
  /** A pseudo terminal from `script` of util-linux. */
  | "terminal"
  /** The bundled model with its language model, which is downloaded once. */
  | "language-model"
  /** Weights that a reference test compares with. */
  | "weights";

const allowed = new Set((process.env.MINIGPT4_ALLOW_SKIPS ?? "").split(",").map((name) => name.trim()));

/** Whether to skip tests that need a capability, for `test.skipIf`. @throws Error in CI if it is missing and not allowed to be */
export function isMissing(capability: Capability, available: boolean): boolean {
  if (!available) failInCi(capability, "it is missing");
  return !available;
}

/** Skips the running test. @throws Error in CI if skipping is not allowed */
export function skipWithout(context: TestContext, capability: Capability, reason: string): never {
  failInCi(capability, reason);
  return context.skip(reason);
}

function failInCi(capability: Capability, reason: string): void {
  const { CI } = process.env;
  if (!CI || CI === "false" || CI === "0" || allowed.has(capability)) return;
  throw new Error(
    `This test needs ${capability}: ${reason}. Install it, or skip the test with MINIGPT4_ALLOW_SKIPS=${capability}`,
  );
}
