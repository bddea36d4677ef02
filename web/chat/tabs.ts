/** Tabs of the same page tell each other which chats have changed. */
import type { Chat } from "./chat.ts";
import type { Library } from "./library.ts";

/** Keeps the libraries of all open tabs alike. */
export function shareChanges(library: Library): void {
  if (typeof BroadcastChannel === "undefined") return;
  const channel = new BroadcastChannel("minigpt4-chats");
  library.kept = (id) => channel.postMessage(id);
  channel.onmessage = ({ data }: MessageEvent<Chat["id"]>) => library.reread(data);
}
