/** Where in the page one is, as the part of the address after `#`. */
import { Store } from "./store.ts";

export type Route =
  /** A chat; without an id, a new one. */
  { readonly page: "chat"; readonly id?: string } | { readonly page: "training" } | { readonly page: "review" };

/** The route of an address' hash; a new chat if it names no page. */
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

export const route = new Store<Route>({ page: "chat" });

/** Goes to a route; `replace` leaves no entry in the browser's history. */
export function go(to: Route, { replace = false } = {}): void {
  if (replace) history.replaceState(null, "", routeHash(to));
  else history.pushState(null, "", routeHash(to));
  route.set(to);
}

/** Keeps `route` as the address says. */
export function followAddress(): void {
  const read = () => route.set(parseRoute(location.hash));
  read();
  addEventListener("popstate", read);
  addEventListener("hashchange", read);
}
