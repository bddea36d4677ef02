/** Hash routes, the sections that the server offers, and whether the sidebar drawer is open. */
import { bundledModel } from "../backend/backend.ts";
import { request } from "../backend/http.ts";
import { Store } from "./store.ts";

export type Route =
  /** A chat; without an id, a new one. */
  { readonly page: "chat"; readonly id?: string } | { readonly page: "training" } | { readonly page: "review" };

export type Section = Route["page"];

export const route = new Store<Route>({ page: "chat" });

/** The sections in the sidebar. */
export const sections = new Store<readonly Section[]>(["chat", "training"]);

/** Whether the sidebar is open as a drawer, on screens too narrow to show it permanently. */
export const sidebarOpen = new Store(false);

/** Parses the hash of an address; an unknown page is a new chat. */
export function parseRoute(hash: string): Route {
  const [page, id] = hash.replace(/^#?\/?/, "").split("/");
  if (page === "training" || page === "review") return { page };
  return page === "chat" && id && /^[\w-]+$/.test(id) ? { page: "chat", id } : { page: "chat" };
}

/** The hash of a route, for links. */
export function routeHash(route: Route): string {
  if (route.page === "chat") return route.id === undefined ? "#/" : `#/chat/${route.id}`;
  return `#/${route.page}`;
}

/** Navigates to a route. @param options.replace leaves no entry in the browser's history */
export function navigate(to: Route, { replace = false } = {}): void {
  if (replace) history.replaceState(null, "", routeHash(to));
  else history.pushState(null, "", routeHash(to));
  route.set(to);
}

/** Keeps `route` in sync with the browser's address. */
export function followLocation(): void {
  const sync = () => route.set(parseRoute(location.hash));
  sync();
  addEventListener("popstate", sync);
  addEventListener("hashchange", sync);
}

const healthTimeoutMs = 3000;

/**
 * Asks the server which sections it offers. An exported page has only the chat. If the server does not respond in time, the
 * default stays, and the chat reports the problem.
 */
export async function loadSections(): Promise<void> {
  if (bundledModel() !== undefined) {
    sections.set(["chat"]);
    return;
  }
  try {
    const response = await request("health", { signal: AbortSignal.timeout(healthTimeoutMs) });
    const { model, review } = (await response.json()) as { model?: unknown; review?: unknown };
    const offered: Section[] = model === undefined ? [] : ["chat", "training"];
    if (review === true) offered.push("review");
    if (offered.length > 0) sections.set(offered);
  } catch {
    // Keep the default.
  }
}
