/** Exports and imports chats as files. */
import { saveFile } from "../shell/files.ts";
import { words } from "../shell/language.ts";
import { toast } from "../shell/toasts.tsx";
import { type Chat, titleOf } from "./chat.ts";
import type { ChatApp } from "./chat-app.ts";
import { fileName, fromJson, toJson, toMarkdown } from "./export.ts";
import { chatWords } from "./words.ts";

export async function exportChat(app: ChatApp, chat: Chat, kind: "md" | "json"): Promise<void> {
  const t = words(chatWords);
  const image = (id: string) => app.library.image(id);
  const title = titleOf(chat) ?? t.untitled;
  try {
    if (kind === "json") saveFile(fileName(title, kind), await toJson([chat], image), "application/json");
    else saveFile(fileName(title, kind), await toMarkdown(chat, image, t), "text/markdown");
  } catch (problem) {
    toast(problem instanceof Error ? problem.message : String(problem));
  }
}

export async function exportAll(app: ChatApp): Promise<void> {
  const text = await toJson(app.library.chats.value, (id) => app.library.image(id));
  saveFile("minigpt4-chats.json", text, "application/json");
}

export async function importChats(app: ChatApp, file: File): Promise<void> {
  const t = words(chatWords);
  try {
    const imported = fromJson(await file.text());
    for (const { chat, images } of imported) await app.library.put(chat, images);
    toast(t.imported(imported.length));
  } catch (problem) {
    toast(t.importFailed(problem instanceof Error ? problem.message : String(problem)));
  }
}
