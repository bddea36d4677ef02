import { expect, test } from "vitest";
import { cleanCaption } from "../../src/tokenizers/prompts.ts";

test("captions are cleaned as in the first training stage", () => {
  expect(cleanCaption('  A "Dog"\n(brown), runs... at 3:30;  ~#1*!')).toBe("a dog brown , runs at 3 30 1");
  expect(cleanCaption("the dog's ball - red/blue?")).toBe("the dog's ball - red/blue?");
  expect(cleanCaption(" ... ")).toBe("");
  expect(cleanCaption("word ".repeat(80)).split(" ")).toHaveLength(50);
});
