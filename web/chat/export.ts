/** Exports chats as Markdown or JSON, and imports JSON. */
import { dataUrl } from "../backend/server-backend.ts";
import { saveFile } from "../shell/files.ts";
import { toast } from "../shell/notifications.tsx";
import { getStrings } from "../shell/preferences.ts";
import { type Chat, chatImages, chatTitle, type Message, newId } from "./chat.ts";
import type { ChatApp } from "./chat-app.ts";
import { chatStrings } from "./strings.ts";

/** Returns the bytes of an image by its id. */
type LoadImage = (id: string) => Promise<Blob>;

const format = "minigpt4-chats";

/** A chat as Markdown, with its images as data: URLs. */
export async function toMarkdown(
  chat: Chat,
  loadImage: LoadImage,
  labels: { readonly you: string; readonly model: string; readonly untitled: string },
): Promise<string> {
  const parts = [`# ${escapeMarkdown(chatTitle(chat) ?? labels.untitled)}`];
  for (const message of chat.messages) {
    parts.push(`**${message.role === "user" ? labels.you : labels.model}**`);
    if (message.role === "user") {
      for (const { id, name } of message.images) {
        parts.push(`![${escapeMarkdown(name)}](${await dataUrl(await loadImage(id))})`);
      }
    }
    // An answer may contain Markdown; a question is plain text.
    if (message.text !== "") parts.push(message.role === "user" ? escapeMarkdown(message.text) : message.text);
  }
  return `${parts.join("\n\n")}\n`;
}

/** Chats as JSON, for `fromJson`. */
export async function toJson(chats: readonly Chat[], loadImage: LoadImage): Promise<string> {
  const images: Record<string, string> = {};
  for (const chat of chats) {
    for (const { id } of chatImages(chat)) images[id] ??= await dataUrl(await loadImage(id));
  }
  return JSON.stringify({ format, version: 1, chats, images }, null, 1);
}

export interface Imported {
  readonly chat: Chat;
  readonly images: ReadonlyMap<string, Blob>;
}

/** Parses exported chats, with new ids so that an import never overwrites a chat. @throws Error naming the invalid part of the file */
export function fromJson(text: string): Imported[] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Error("the file is not valid JSON");
  }
  const file = object(json, "the file");
  if (file.format !== format) throw new Error("the file is not a chat export");
  if (file.version !== 1) throw new Error(`unsupported version ${String(file.version)} (this page reads version 1)`);
  // Earlier exports called images "pictures".
  const images = object(file.images ?? file.pictures, "images");
  return array(file.chats, "chats").map((chat, i) => readChat(chat, images, `chat ${i + 1}`));
}

function readChat(value: unknown, images: Record<string, unknown>, where: string): Imported {
  const chat = object(value, where);
  const blobs = new Map<string, Blob>();
  const messages = array(chat.messages, `${where}: messages`).map((message, i) =>
    readMessage(message, images, blobs, `${where}, message ${i + 1}`),
  );
  const title = typeof chat.title === "string" ? chat.title : undefined;
  return {
    chat: {
      id: newId(),
      title: title || undefined,
      created: number(chat.created, `${where}: created`),
      updated: number(chat.updated, `${where}: updated`),
      messages,
    },
    images: blobs,
  };
}

function readMessage(
  value: unknown,
  images: Record<string, unknown>,
  blobs: Map<string, Blob>,
  where: string,
): Message {
  const message = object(value, where);
  const { role, text } = message;
  if (typeof text !== "string") throw new Error(`${where}: text must be a string`);
  if (role === "assistant") {
    const ends = ["stop", "length", "stopped", "problem"] as const;
    return { role, id: newId(), text, end: ends.find((end) => end === message.end) ?? "stopped" };
  }
  if (role !== "user") throw new Error(`${where}: role must be "user" or "assistant"`);
  const refs = array(message.images ?? message.pictures, `${where}: images`).map((one, i) => {
    const image = object(one, `${where}, image ${i + 1}`);
    const id = newId();
    blobs.set(id, fromDataUrl(images[String(image.id)], `${where}, image ${i + 1}`));
    return {
      id,
      name: String(image.name ?? ""),
      width: number(image.width, `${where}: width`),
      height: number(image.height, `${where}: height`),
    };
  });
  return { role, id: newId(), text, images: refs };
}

/** Decodes a data: URL; only image types that cannot contain scripts are accepted. */
function fromDataUrl(url: unknown, where: string): Blob {
  const match =
    typeof url === "string" ? /^data:(image\/(?:jpeg|png|webp|gif));base64,([A-Za-z0-9+/=]+)$/.exec(url) : null;
  if (!match) throw new Error(`${where} is missing from the file`);
  try {
    return new Blob([Uint8Array.from(atob(match[2] ?? ""), (char) => char.charCodeAt(0))], { type: match[1] ?? "" });
  } catch {
    throw new Error(`${where} is not valid base64`);
  }
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new Error(`${where} must be an object`);
  return value as Record<string, unknown>;
}

function array(value: unknown, where: string): unknown[] {
  if (!Array.isArray(value)) throw new Error(`${where} must be an array`);
  return value;
}

function number(value: unknown, where: string): number {
  if (typeof value !== "number" || !Number.isFinite(value)) throw new Error(`${where} must be a number`);
  return value;
}

function escapeMarkdown(text: string): string {
  return text.replace(/[\\`*_[\]<>#|]/g, "\\$&");
}

/** A file name from a title, without characters that file systems reject. */
export function fileName(title: string, extension: string): string {
  const name = title
    .replace(/[\p{Cc}\\/:*?"<>|.]+/gu, " ")
    .replace(/\s+/g, " ")
    .trim()
    .slice(0, 60)
    .trim();
  return `${name || "chat"}.${extension}`;
}

/** Downloads a chat as Markdown or JSON. */
export async function exportChat(app: ChatApp, chat: Chat, format: "md" | "json"): Promise<void> {
  const t = getStrings(chatStrings);
  const loadImage = (id: string) => app.library.image(id);
  const name = fileName(chatTitle(chat) ?? t.untitled, format);
  try {
    if (format === "json") saveFile(name, await toJson([chat], loadImage), "application/json");
    else saveFile(name, await toMarkdown(chat, loadImage, t), "text/markdown");
  } catch (error) {
    toast(errorMessage(error));
  }
}

/** Downloads all chats as JSON. */
export async function exportAll(app: ChatApp): Promise<void> {
  try {
    const text = await toJson(app.library.chats.value, (id) => app.library.image(id));
    saveFile("minigpt4-chats.json", text, "application/json");
  } catch (error) {
    toast(errorMessage(error));
  }
}

/** Adds the chats of an exported JSON file. */
export async function importChats(app: ChatApp, file: File): Promise<void> {
  const t = getStrings(chatStrings);
  try {
    const imported = fromJson(await file.text());
    for (const { chat, images } of imported) await app.library.put(chat, images);
    toast(t.imported(imported.length));
  } catch (error) {
    toast(t.importFailed(errorMessage(error)));
  }
}

function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
