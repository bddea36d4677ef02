/** Writes versions of the first image's text, beside others that do the same: `writer.ts PROJECT AUTHOR COUNT`. */
import { StaleVersionError } from "../../src/curation/entry.ts";
import { CurationStore } from "../../src/curation/store.ts";

const [path = "", author = "", count = "0"] = process.argv.slice(2);
const store = CurationStore.open(path);
for (let written = 0; written < Number(count); ) {
  const parent = store.entry(1)?.current?.id;
  try {
    store.addVersion({ image: 1, parent, kind: "edited", text: `${author} ${written}`, author });
    written++;
  } catch (error) {
    if (!(error instanceof StaleVersionError)) throw error;
  }
}
store.close();
