/** Token ids and texts against the original's SentencePiece. */
import { join } from "node:path";
import { describe, test } from "vitest";
import { loadTokenizer } from "../../src/tokenizers/load.ts";
import { expectEqual } from "../helpers/deviations.ts";
import { GoldenSet, goldenFolders } from "../helpers/golden-set.ts";

describe.each(goldenFolders())("%s", (folder) => {
  test.each(["llama-safetensors", "llama-bin"])("tokenizer cases of %s", async (llm) => {
    const set = await GoldenSet.load(folder);
    const tokenizer = await loadTokenizer(join(folder, llm));
    const cases = set.goldens.tokenizer;
    const found = cases.map(({ text, ids }) => ({ text, ids: tokenizer.encode(text), decoded: tokenizer.decode(ids) }));
    expectEqual(`${set.name}: ${cases.length} tokenizer cases (${llm})`, found, cases);
    await set.close();
  });
});
