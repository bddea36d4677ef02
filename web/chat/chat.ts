/** The data of a chat, and its edits. Chats are immutable: every function returns a new one. */
import type { FinishReason, ProblemKind, PromptMessage } from "../backend/backend.ts";

/** A reference to an image; its bytes are in the storage. */
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
  /** Why it ended; undefined while it is being generated. */
  readonly end?: FinishReason | "stopped" | "problem";
  /** What went wrong, if `end` is "problem". */
  readonly problem?: { readonly kind: ProblemKind; readonly message: string };
  readonly timing?: Timing;
}

export interface Timing {
  /** Seconds from the request to the first text. */
  readonly first: number;
  /** Seconds from the first text to the end. */
  readonly rest: number;
  readonly tokens?: number;
}

export type Message = UserMessage | AssistantMessage;

export interface Chat {
  readonly id: string;
  /** Set by the user. @default the first text of the chat */
  readonly title?: string;
  /** Milliseconds since 1970. */
  readonly created: number;
  readonly updated: number;
  /** Questions and answers in turn. */
  readonly messages: readonly Message[];
}

export function newChat(now = Date.now()): Chat {
  return { id: newId(), created: now, updated: now, messages: [] };
}

/** Adds a question and an empty answer. */
export function addQuestion(chat: Chat, text: string, images: readonly ImageRef[], now = Date.now()): Chat {
  const question: UserMessage = { role: "user", id: newId(), text: text.trim(), images };
  return { ...chat, updated: now, messages: [...chat.messages, question, emptyAnswer()] };
}

/** Replaces the text of a question, and everything after it by an empty answer. Returns the chat itself if it has no such question. */
export function editQuestion(chat: Chat, id: string, text: string, now = Date.now()): Chat {
  const index = chat.messages.findIndex((message) => message.id === id);
  const question = chat.messages[index];
  if (question?.role !== "user") return chat;
  const edited = { ...question, text: text.trim() };
  return { ...chat, updated: now, messages: [...chat.messages.slice(0, index), edited, emptyAnswer()] };
}

/** Replaces the last answer by an empty one. Returns the chat itself if it has no question. */
export function resetLastAnswer(chat: Chat, now = Date.now()): Chat {
  const index = chat.messages.findLastIndex((message) => message.role === "user");
  if (index < 0) return chat;
  return { ...chat, updated: now, messages: [...chat.messages.slice(0, index + 1), emptyAnswer()] };
}

/** Changes the last answer. Returns the chat itself if it has none. */
export function updateAnswer(chat: Chat, change: (answer: AssistantMessage) => AssistantMessage): Chat {
  const last = chat.messages.at(-1);
  if (last?.role !== "assistant") return chat;
  return { ...chat, messages: [...chat.messages.slice(0, -1), change(last)] };
}

/** Sets the title; a blank one resets it. */
export function rename(chat: Chat, title: string): Chat {
  const { title: _, ...rest } = chat;
  return title.trim() === "" ? rest : { ...rest, title: title.trim() };
}

/** Marks an unfinished last answer as stopped, as after closing the page while it was generated. */
export function markStopped(chat: Chat): Chat {
  const last = chat.messages.at(-1);
  if (last?.role !== "assistant" || last.end) return chat;
  return updateAnswer(chat, (answer) => ({ ...answer, end: "stopped" }));
}

/** The user's title, else the start of the first text, else undefined. */
export function chatTitle(chat: Chat): string | undefined {
  if (chat.title) return chat.title;
  const first = chat.messages.find((message) => message.text !== "");
  if (!first) return undefined;
  const line = first.text.replace(/\s+/g, " ");
  return line.length > 60 ? `${line.slice(0, 59).trimEnd()}…` : line;
}

/** The images of a chat, oldest first. */
export function chatImages(chat: Chat): readonly ImageRef[] {
  return chat.messages.flatMap((message) => (message.role === "user" ? message.images : []));
}

/** The prompt for the last answer: the messages before it, without empty answers. @param loadImage returns the bytes of an image by its id */
export async function promptMessages(chat: Chat, loadImage: (id: string) => Promise<Blob>): Promise<PromptMessage[]> {
  const before = chat.messages.at(-1)?.role === "assistant" ? chat.messages.slice(0, -1) : chat.messages;
  const prompt = before.filter((message) => message.role === "user" || message.text !== "");
  return Promise.all(
    prompt.map(async (message) => ({
      role: message.role,
      text: message.text,
      images: message.role === "user" ? await Promise.all(message.images.map(({ id }) => loadImage(id))) : [],
    })),
  );
}

/** A random id. `crypto.randomUUID` is not available in insecure contexts. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function emptyAnswer(): AssistantMessage {
  return { role: "assistant", id: newId(), text: "" };
}
