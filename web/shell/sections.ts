/** What the server has for the page: a model to chat with, training runs, a project to review. */
import { askServer } from "../backend/ask.ts";
import { modelBesidePage } from "../backend/model-beside-page.ts";
import type { Route } from "./router.ts";
import { Store } from "./store.ts";

export type Section = Route["page"];

export const sections = new Store<readonly Section[]>(["chat", "training"]);

/** Longer than this the page does not wait before it is drawn. */
const patience = 3000;

/**
 * Asks the server once; where the page was exported there is none, and only the chat. What does not answer is taken for a server
 * with a model, and the chat says that it is away.
 */
export async function askSections(): Promise<void> {
  if (modelBesidePage() !== undefined) {
    sections.set(["chat"]);
    return;
  }
  try {
    const response = await askServer("health", { signal: AbortSignal.timeout(patience) });
    const { model, review } = (await response.json()) as { model?: unknown; review?: unknown };
    const found: Section[] = model === undefined ? [] : ["chat", "training"];
    if (review === true) found.push("review");
    if (found.length > 0) sections.set(found);
  } catch {
    // As it was.
  }
}
