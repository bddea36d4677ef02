/** From the messages of a chat request to the question that an engine answers. */
import { randomInt } from "node:crypto";
import type { GenerationRequest, ModelInfo } from "../../engine/engine.ts";
import type { Turn } from "../../tokenizers/prompts.ts";
import { openAiError } from "../errors.ts";
import type { ChatRequest, Message } from "./chat-schema.ts";

/** A question whose images are still addresses. */
export type UnresolvedRequest = Omit<GenerationRequest, "images"> & { readonly images: readonly string[] };

/** No token of the known vocabularies stands for more: a text that is longer than so many characters for each position cannot fit, and is not even tokenised. */
const charactersPerToken = 128;

const maxTokensByDefault = 300;

/** @throws OpenAiError 400 if the messages make no conversation, or cannot fit the model */
export function toGenerationRequest(request: ChatRequest, model: ModelInfo): UnresolvedRequest {
  const { system, turns, images } = readMessages(request.messages);
  checkLength([system ?? "", ...turns.map(({ text }) => text)], model);
  const [first] = turns;
  const describes = system === undefined && turns.length === 1 && first?.text === "" && images.length === 1;
  return {
    turns: describes ? "describe" : turns,
    ...(system !== undefined && { system }),
    images,
    overflow: "refuse",
    ...decoding(request, model),
  };
}

/** How the answer is searched for. */
function decoding(request: ChatRequest, model: ModelInfo): Omit<UnresolvedRequest, "turns" | "images"> {
  const { temperature, top_p, top_k, n, seed, stop } = request;
  const maxTokens = request.max_completion_tokens ?? request.max_tokens;
  if (maxTokens != null && maxTokens >= model.contextLength) {
    throw openAiError(400, {
      message: `max_tokens is ${maxTokens}; the model has ${model.contextLength} tokens for messages and answer together`,
      param: request.max_completion_tokens == null ? "max_tokens" : "max_completion_tokens",
      code: "context_length_exceeded",
    });
  }
  // OpenAI's default is a temperature of 1. A small model drifts off there, and describes best what it finds likeliest, so that
  // nothing is drawn here unless a request shows that it wants to draw: with a temperature, top_p or top_k, or several answers.
  const draws = top_p != null || top_k != null || (n != null && n > 1);
  return {
    temperature: temperature ?? (draws ? 1 : 0),
    topP: top_p ?? undefined,
    topK: top_k ?? undefined,
    repetitionPenalty: request.repetition_penalty ?? undefined,
    numBeams: request.num_beams ?? undefined,
    lengthPenalty: request.length_penalty ?? undefined,
    maxNewTokens: maxTokens ?? Math.min(maxTokensByDefault, Math.floor(model.contextLength / 2)),
    choices: n ?? 1,
    // The engine's own default is a fixed seed; whoever draws without one expects another answer each time.
    seed: seed == null ? randomInt(2 ** 32) : Math.abs(seed) % 2 ** 32,
    stop: typeof stop === "string" ? [stop] : (stop ?? []),
  };
}

/** System messages joined; consecutive messages of one role as one turn, its images before its text, as the model was trained. */
function readMessages(messages: readonly Message[]): {
  readonly system?: string;
  readonly turns: readonly Turn[];
  readonly images: readonly string[];
} {
  const system: string[] = [];
  const images: string[] = [];
  const turns: Turn[] = [];
  for (const message of messages) {
    const { text, urls } = readContent(message.content ?? "");
    if (message.role === "system" || message.role === "developer") {
      system.push(text);
      continue;
    }
    images.push(...urls);
    const last = turns.at(-1);
    if (last?.role === message.role) {
      const joined = [last.text, text].filter((part) => part !== "").join("\n");
      turns[turns.length - 1] = { ...last, text: joined, images: (last.images ?? 0) + urls.length };
    } else {
      turns.push({ role: message.role, text, ...(message.role === "user" && { images: urls.length }) });
    }
  }
  const asked = turns.at(-1);
  if (asked?.role !== "user") throw refused("The last message should be the user's: it is what is answered");
  if (asked.text === "" && !asked.images) throw refused("The last message is empty; ask something, or give an image");
  return { ...(system.length > 0 && { system: system.join("\n\n") }), turns, images };
}

function readContent(content: NonNullable<Message["content"]>): { readonly text: string; readonly urls: string[] } {
  if (typeof content === "string") return { text: content.trim(), urls: [] };
  const text = content.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n");
  return {
    text: text.trim(),
    urls: content.flatMap((part) => (part.type === "image_url" ? [part.image_url.url] : [])),
  };
}

/** Spares the tokenizer texts that certainly do not fit. */
export function checkLength(texts: readonly string[], { contextLength }: ModelInfo): void {
  const characters = texts.reduce((sum, text) => sum + text.length, 0);
  if (characters <= contextLength * charactersPerToken) return;
  throw openAiError(400, {
    message: `The text has ${characters} characters, which cannot fit into the model's ${contextLength} tokens`,
    code: "context_length_exceeded",
  });
}

function refused(message: string) {
  return openAiError(400, { message, param: "messages" });
}
