/** Who answers: the server from which the page came, or a model that lies beside the page. */
import { apiKey } from "./api-key.ts";
import type { Backend } from "./backend.ts";
import { ServerBackend } from "./server.ts";

/** The backend of this page. An exported page names its model in a meta element. */
export async function chooseBackend(): Promise<Backend> {
  const model = document.querySelector<HTMLMetaElement>('meta[name="minigpt4-model"]')?.content;
  if (!model) return new ServerBackend({ key: () => apiKey.value });
  const { LocalBackend } = await import("./local.ts");
  return new LocalBackend(new URL(model, document.baseURI).href);
}
