import fc from "fast-check";
import { expect, test } from "vitest";
import { TrimmedText } from "../../../src/server/openai/chat-completions.ts";

test("trims the text, however it is split", () => {
  const pieces = fc.array(fc.oneof(fc.constantFrom(" ", "\n", "a ", " b", "  "), fc.string({ maxLength: 3 })));
  fc.assert(
    fc.property(pieces, (all) => {
      const trimmed = new TrimmedText();
      expect(all.map((piece) => trimmed.push(piece)).join("")).toBe(all.join("").trim());
    }),
  );
});
