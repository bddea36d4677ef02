/** Whether the side is open where there is no room for it beside the page. */
import { Store } from "./store.ts";

export const sideOpen = new Store(false);
