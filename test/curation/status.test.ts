import { expect, test } from "vitest";
import { statusTable } from "../../src/cli/curate/status.ts";
import type { NewVersion } from "../../src/curation/entry.ts";
import { type ProjectStatus, projectStatus } from "../../src/curation/status.ts";
import type { CurationStore } from "../../src/curation/store.ts";
import { openProject, someImages } from "../helpers/curation-projects.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const folder = temporaryFolder();

/** A project in which everything has happened. */
function eventful(): CurationStore {
  const store = openProject(folder, "eventful.db");
  store.addImages(someImages(8));
  const version = (image: number, more: Partial<NewVersion> = {}) => {
    const parent = store.entry(image)?.current?.id;
    const made = { image, parent, kind: "described", text: `text ${image}`, author: "nano", ...more } as const;
    return store.addVersion(made).id;
  };
  const cost = { promptTokens: 100, completionTokens: 10, duration: 1500 };
  for (const [image, continuations] of [
    [1, ["added"]],
    [2, ["empty"]],
    [3, []],
    [4, []],
    [5, []],
    [6, []],
  ] as const) {
    version(image, { details: { ...cost, continuations } });
  }
  store.addFailure(7, "describe", "no image");
  store.addFailure(7, "describe", "no image");
  const polished = [1, 2, 3, 4].map((image) =>
    version(image, { kind: "polished", author: "smollm2", details: { promptTokens: 7, completionTokens: 5 } }),
  );
  store.addFailure(5, "polish", "429");
  const rules = { judge: "rules", author: "rules 1" } as const;
  const [first = 0, second = 0, third = 0, fourth = 0] = polished;
  const apology = { rule: "apology", message: "I'm sorry" };
  store.addVerdict({ ...rules, version: first, decision: "keep" });
  store.addVerdict({ ...rules, version: second, decision: "keep" });
  store.addVerdict({ ...rules, version: third, decision: "drop", reasons: [apology, { rule: "short", message: "" }] });
  store.addVerdict({ ...rules, version: fourth, decision: "drop", reasons: [apology, apology] });
  const person = { judge: "person", decision: "keep" } as const;
  store.addVerdict({ ...person, version: first, author: "a" });
  store.addVerdict({ ...person, version: second, author: "a" });
  store.addVerdict({ ...person, version: second, author: "b", decision: "drop" });
  store.addVerdict({ ...person, version: third, author: "b", decision: "withdrawn" });
  store.addVerdict({ ...person, version: version(4, { kind: "edited", author: "b" }), author: "b" });
  // Whoever takes an edit back has not written the text that stands again.
  version(6, { kind: "edited", author: "c" });
  store.undo("c");
  return store;
}

const expected: ProjectStatus = {
  images: 8,
  steps: {
    describe: { in: 8, out: 6 },
    continue: { in: 2, out: 1 },
    polish: { in: 6, out: 4 },
    // The edited text was not judged by rules yet.
    filter: { in: 3, out: 2 },
    review: { in: 5, out: 3 },
  },
  rules: { apology: 1, short: 1 },
  persons: [
    { person: "a", kept: 2, dropped: 0 },
    { person: "b", kept: 1, dropped: 1 },
  ],
  judgedBySeveral: 1,
  disagreements: 1,
  edited: 1,
  failures: { describe: 1, polish: 1 },
  standing: { empty: 2, open: 2, kept: 2, dropped: 2 },
  authors: [
    { author: "nano", kind: "described", texts: 6, promptTokens: 600, completionTokens: 60, seconds: 9 },
    { author: "smollm2", kind: "polished", texts: 4, promptTokens: 28, completionTokens: 20, seconds: 0 },
    { author: "b", kind: "edited", texts: 1, promptTokens: 0, completionTokens: 0, seconds: 0 },
    { author: "c", kind: "edited", texts: 1, promptTokens: 0, completionTokens: 0, seconds: 0 },
  ],
};

test("counts inputs and outputs of each step, authors and costs", () => {
  expect(projectStatus(eventful())).toEqual(expected);
});

test("the counts as a table", () => {
  expect(statusTable(expected)).toMatchInlineSnapshot(`
    "step             in      out
    describe          8        6   1 failed
    continue          2        1
    polish            6        4   1 had no usable answer
    filter            3        2   apology 1, short 1
    review            5        3   a: 2 kept and 0 dropped, b: 1 kept and 1 dropped, 1 edited, 1 judged by several reviewers, 1 disagreements

    8 images: 2 kept, 2 dropped, 2 open, 2 without a text

        texts  prompt tokens  output tokens    seconds
            6            600             60          9   described by nano
            4             28             20          0   polished by smollm2"
  `);
});

test("counts nothing in an empty project", () => {
  const { images, rules, persons, authors, standing } = projectStatus(openProject(folder, "empty.db"));
  expect({ images, rules, persons, authors }).toEqual({ images: 0, rules: {}, persons: [], authors: [] });
  expect(standing).toEqual({ empty: 0, open: 0, kept: 0, dropped: 0 });
});
