/** Who answers: the server from which the page came, or a model that lies beside the page. */
import type { Backend } from "./backend.ts";
import { modelBesidePage } from "./model-beside-page.ts";
import { ServerBackend } from "./server.ts";

/** The backend of this page. */
export async function chooseBackend(): Promise<Backend> {
  const model = modelBesidePage();
  if (!model) return new ServerBackend();
  const { LocalBackend } = await import("./local.ts");
  return new LocalBackend(new URL(model, document.baseURI).href);
}
