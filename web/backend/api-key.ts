/** The key for a server that asks for one. It is forgotten when the tab is closed, and never exported. */
import { preference } from "../shell/preferences.ts";

export const apiKey = preference<string | undefined>(
  "key",
  (kept) => (typeof kept === "string" && kept !== "" ? kept : undefined),
  () => sessionStorage,
);
