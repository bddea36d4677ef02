/** Before the stop string that is complete first; of several that end at once, before the longest. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { StopFilter } from "../../src/generation/stop-filter.ts";

function cutWhole(text: string, stops: readonly string[]): string {
  for (let end = 0; end <= text.length; end++) {
    const ending = stops.filter((stop) => stop !== "" && text.slice(0, end).endsWith(stop));
    if (ending.length > 0) return text.slice(0, end - Math.max(...ending.map((stop) => stop.length)));
  }
  return text;
}

const few = (maxLength: number) => fc.string({ unit: fc.constantFrom("a", "b", "#", "é"), maxLength });

test("the result does not depend on how the text is split", () => {
  fc.assert(
    fc.property(fc.array(few(4), { maxLength: 8 }), fc.array(few(3), { maxLength: 3 }), (pieces, stops) => {
      const filter = new StopFilter(stops);
      let out = "";
      for (const piece of pieces) out += filter.push(piece);
      out += filter.flush();
      const text = pieces.join("");
      expect(out).toBe(cutWhole(text, stops));
      expect(filter.stopped).toBe(stops.some((stop) => stop !== "" && text.includes(stop)));
    }),
    { numRuns: 1000 },
  );
});

test("only text that can start a stop string is buffered", () => {
  const filter = new StopFilter(["###"]);
  expect([filter.push("a##"), filter.push("b#"), filter.push("##c"), filter.push("d"), filter.flush()]).toEqual([
    "a",
    "##b",
    "",
    "",
    "",
  ]);
  expect(filter.stopped).toBe(true);
});
