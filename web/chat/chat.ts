/** A chat as the page keeps it, and the edits that are made to one. All functions return a new chat. */
import type { FinishReason, ProblemKind, Said } from "../backend/backend.ts";
import { newId } from "./ids.ts";

/** An image by its id; its bytes lie in the storage. */
export interface ImageRef {
  readonly id: string;
  readonly name: string;
  readonly width: number;
  readonly height: number;
}

export interface UserMessage {
  readonly role: "user";
  readonly id: string;
  readonly text: string;
  readonly images: readonly ImageRef[];
}

export interface AssistantMessage {
  readonly role: "assistant";
  readonly id: string;
  readonly text: string;
  /** How it ended; undefined while it is being written. */
  readonly end?: FinishReason | "stopped" | "problem";
  /** Why it ended, where that was a problem. */
  readonly problem?: { readonly kind: ProblemKind; readonly message: string };
  readonly timing?: Timing;
}

/** How long an answer took. */
export interface Timing {
  /** Seconds from the question to the first text. */
  readonly first: number;
  /** Seconds from the first text to the end. */
  readonly rest: number;
  readonly tokens?: number;
}

export type Message = UserMessage | AssistantMessage;

export interface Chat {
  readonly id: string;
  /** The title that the user gave; otherwise it comes from the first question. */
  readonly title?: string;
  /** Milliseconds since 1970. */
  readonly created: number;
  readonly updated: number;
  /** A question, its answer, a question, and so on. */
  readonly messages: readonly Message[];
}

export function newChat(now = Date.now()): Chat {
  return { id: newId(), created: now, updated: now, messages: [] };
}

/** Adds a question, and an answer that is still empty. */
export function ask(chat: Chat, text: string, images: readonly ImageRef[], now = Date.now()): Chat {
  const question: UserMessage = { role: "user", id: newId(), text: text.trim(), images };
  return { ...chat, updated: now, messages: [...chat.messages, question, emptyAnswer()] };
}

/** Replaces a question, with an empty answer after it; what followed is gone. The chat itself if there is no such question. */
export function editQuestion(chat: Chat, id: string, text: string, now = Date.now()): Chat {
  const at = chat.messages.findIndex((message) => message.id === id);
  const question = chat.messages[at];
  if (question?.role !== "user") return chat;
  const edited = { ...question, text: text.trim() };
  return { ...chat, updated: now, messages: [...chat.messages.slice(0, at), edited, emptyAnswer()] };
}

/** Puts an empty answer in the place of the last one. The chat itself if it has no question. */
export function askAgain(chat: Chat, now = Date.now()): Chat {
  const at = chat.messages.findLastIndex((message) => message.role === "user");
  if (at < 0) return chat;
  return { ...chat, updated: now, messages: [...chat.messages.slice(0, at + 1), emptyAnswer()] };
}

/** Changes the last answer. */
export function changeAnswer(chat: Chat, change: (answer: AssistantMessage) => AssistantMessage): Chat {
  const last = chat.messages.at(-1);
  if (last?.role !== "assistant") return chat;
  return { ...chat, messages: [...chat.messages.slice(0, -1), change(last)] };
}

export function rename(chat: Chat, title: string): Chat {
  const { title: _, ...rest } = chat;
  return title.trim() === "" ? rest : { ...rest, title: title.trim() };
}

/** An answer that nobody writes any more, as after closing the page in the middle of it, counts as stopped. */
export function settle(chat: Chat): Chat {
  const last = chat.messages.at(-1);
  if (last?.role !== "assistant" || last.end) return chat;
  return changeAnswer(chat, (answer) => ({ ...answer, end: "stopped" }));
}

/** What a chat is called: the user's title, its first words, or undefined if it has none. */
export function titleOf(chat: Chat): string | undefined {
  if (chat.title) return chat.title;
  const first = chat.messages.find((message) => message.text !== "");
  if (!first) return undefined;
  const line = first.text.replace(/\s+/g, " ");
  return line.length > 60 ? `${line.slice(0, 59).trimEnd()}…` : line;
}

/** The images of a chat, in their order. */
export function imagesOf(chat: Chat): readonly ImageRef[] {
  return chat.messages.flatMap((message) => (message.role === "user" ? message.images : []));
}

/** What the model is shown to write the last answer: everything before it, without answers of which nothing came. */
export async function saidIn(chat: Chat, image: (id: string) => Promise<Blob>): Promise<Said[]> {
  const before = chat.messages.at(-1)?.role === "assistant" ? chat.messages.slice(0, -1) : chat.messages;
  const said = before.filter((message) => message.role === "user" || message.text !== "");
  return Promise.all(
    said.map(async (message) => ({
      role: message.role,
      text: message.text,
      images: message.role === "user" ? await Promise.all(message.images.map(({ id }) => image(id))) : [],
    })),
  );
}

function emptyAnswer(): AssistantMessage {
  return { role: "assistant", id: newId(), text: "" };
}
