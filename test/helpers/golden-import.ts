/** The golden set's files, imported. */
import { join } from "node:path";
import type { ImportOptions } from "../../src/convert/import.ts";
import { goldenRoot } from "./golden-set.ts";

export const golden = (file: string) => join(goldenRoot, "mha", file);

/** Options for `importModel`: the golden files, whose heads are narrower than those of the released ones. */
export function goldenImport(out: string, change: Partial<ImportOptions> = {}): ImportOptions {
  return {
    vit: golden("eva_vit.pth"),
    qformer: golden("blip2_qformer.pth"),
    llm: golden("llama-bin"),
    projection: golden("minigpt4.pth"),
    vitHeads: 4,
    qformerHeads: 4,
    out,
    ...change,
  };
}
