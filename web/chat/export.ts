/** Chats as files: Markdown for people, JSON to be read again. */
import { dataUrl } from "../backend/server.ts";
import { type Chat, imagesOf, type Message, titleOf } from "./chat.ts";
import { newId } from "./ids.ts";

/** Reads the bytes of an image. */
type ImageEncoder = (id: string) => Promise<Blob>;

const format = "minigpt4-chats";

/** A chat as Markdown, its images in it as data: addresses. */
export async function toMarkdown(
  chat: Chat,
  image: ImageEncoder,
  names: { readonly you: string; readonly model: string; readonly untitled: string },
): Promise<string> {
  const parts = [`# ${escapeMarkdown(titleOf(chat) ?? names.untitled)}`];
  for (const message of chat.messages) {
    parts.push(`**${message.role === "user" ? names.you : names.model}**`);
    if (message.role === "user") {
      for (const { id, name } of message.images) {
        parts.push(`![${escapeMarkdown(name)}](${await dataUrl(await image(id))})`);
      }
    }
    // An answer may be Markdown itself; a question is what was typed.
    if (message.text !== "") parts.push(message.role === "user" ? escapeMarkdown(message.text) : message.text);
  }
  return `${parts.join("\n\n")}\n`;
}

/** Chats as JSON that `fromJson` reads. */
export async function toJson(chats: readonly Chat[], image: ImageEncoder): Promise<string> {
  const images: Record<string, string> = {};
  for (const chat of chats) {
    for (const { id } of imagesOf(chat)) images[id] ??= await dataUrl(await image(id));
  }
  return JSON.stringify({ format, version: 1, chats, images }, null, 1);
}

export interface Imported {
  readonly chat: Chat;
  readonly images: ReadonlyMap<string, Blob>;
}

/** Reads exported chats. They get ids of their own, so that nothing is overwritten. @throws Error saying what is wrong */
export function fromJson(text: string): Imported[] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Error("the file is not JSON");
  }
  const file = object(json, "the file");
  if (file.format !== format) throw new Error("the file is not an export of chats");
  if (file.version !== 1) throw new Error(`the file is of version ${String(file.version)}; this page reads version 1`);
  const images = object(file.images, "images");
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
      ...(title && { title }),
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
  if (typeof text !== "string") throw new Error(`${where} has no text`);
  if (role === "assistant") {
    const ends = ["stop", "length", "stopped", "problem"] as const;
    return { role, id: newId(), text, end: ends.find((end) => end === message.end) ?? "stopped" };
  }
  if (role !== "user") throw new Error(`${where} is of neither user nor assistant`);
  const shown = array(message.images, `${where}: images`).map((one, i) => {
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
  return { role, id: newId(), text, images: shown };
}

/** The image in a data: address; only what cannot hold a script. */
function fromDataUrl(url: unknown, where: string): Blob {
  const match =
    typeof url === "string" ? /^data:(image\/(?:jpeg|png|webp|gif));base64,([A-Za-z0-9+/=]+)$/.exec(url) : null;
  if (!match) throw new Error(`${where} is not in the file`);
  try {
    return new Blob([Uint8Array.from(atob(match[2] ?? ""), (char) => char.charCodeAt(0))], { type: match[1] ?? "" });
  } catch {
    throw new Error(`${where} is broken`);
  }
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error(`${where} is no object`);
  return value as Record<string, unknown>;
}

function array(value: unknown, where: string): unknown[] {
  if (!Array.isArray(value)) throw new Error(`${where} is no list`);
  return value;
}

function number(value: unknown, where: string): number {
  if (typeof value !== "number" || !Number.isFinite(value)) throw new Error(`${where} is no number`);
  return value;
}

function escapeMarkdown(text: string): string {
  return text.replace(/[\\`*_[\]<>#|]/g, "\\$&");
}

/** A name for a file: the title without what file systems do not take. */
export function fileName(title: string, extension: string): string {
  const name = title
    .replace(/[\p{Cc}\\/:*?"<>|.]+/gu, " ")
    .replace(/\s+/g, " ")
    .trim()
    .slice(0, 60)
    .trim();
  return `${name || "chat"}.${extension}`;
}
