/** The examples in the docstrings of the library's exports compile. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { checkDocExamples } from "./helpers/doc-examples.ts";
import { temporaryFolder } from "./helpers/tiny-model.ts";

const root = join(import.meta.dirname, "..");

test("every exported class, function and constant has an @example, and all examples compile", () => {
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { exports: object };
  const entries = Object.values(exports)
    .filter((entry) => typeof entry === "object")
    .map((entry: { default: string }) => join(root, entry.default.replace("dist", "src").replace(/\.js$/, ".ts")));
  expect(entries.length).toBeGreaterThanOrEqual(4);
  const { exports: names, count, problems } = checkDocExamples(entries);
  expect(problems).toEqual([]);
  expect(names).toEqual(expect.arrayContaining(["MiniGPT4", "openCheckpoint", "runRecipe", "createApp"]));
  expect(count).toBeGreaterThan(20);
});

test("a missing example and errors in examples are reported with export, file and line", () => {
  const entry = join(temporaryFolder(), "entry.ts");
  writeFileSync(
    entry,
    `/** Returns 1. */
export function undocumented(): number {
  return 1;
}
/** @example one() */
export const one = () => 1;
/**
 * Loads.
 *
 * @example
 * \`\`\`ts
 * import { MiniGPT4 } from "minigpt4";
 *
 * await MiniGPT4.load(7);
 * \`\`\`
 */
export class Model {
  /**
   * Describes.
   *
   * @example
   * \`\`\`ts
   * console.log(await model.describe());
   * \`\`\`
   */
  describe(): void {}
}
/** Types need none. */
export interface Options {}
`,
  );
  const { problems } = checkDocExamples([entry]);
  expect(problems).toEqual([
    expect.stringMatching(/^undocumented \(.*entry\.ts:2\) has no @example$/),
    expect.stringMatching(/^one \(.*entry\.ts:5\): its @example has no block/),
    expect.stringMatching(/^Model \(.*entry\.ts:14\): Argument of type 'number' is not assignable/),
    expect.stringMatching(/^Model \(.*entry\.ts:23\): Cannot find name 'model'/),
  ]);
});
