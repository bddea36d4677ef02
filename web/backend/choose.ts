/** Who answers: the server from which the page came. */
import { apiKey } from "./api-key.ts";
import type { Backend } from "./backend.ts";
import { ServerBackend } from "./server.ts";

/** The backend of this page. */
export async function chooseBackend(): Promise<Backend> {
  return new ServerBackend({ key: () => apiKey.value });
}
