/** Polishes a project, until it is done or killed: `polisher.ts PROJECT BASE_URL`. */
import { polish } from "../../src/curation/polishing/polish.ts";
import { CurationStore } from "../../src/curation/store.ts";

const [path = "", baseUrl = ""] = process.argv.slice(2);
const store = CurationStore.open(path);
await polish(store, { baseUrl, model: "test", parallel: 3 });
store.close();
