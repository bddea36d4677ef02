/** Converts a chat completion request to a generation request. */
import { randomInt } from "node:crypto";
import type { GenerationRequest, ModelInfo } from "../../engine/engine.ts";
import type { Turn } from "../../tokenizers/prompts.ts";
import { openAiError } from "../errors.ts";
import type { ChatRequest, Message } from "./chat-schema.ts";

/** A generation request whose images are URLs that have not been fetched yet. */
export type ParsedChatRequest = Omit<GenerationRequest, "images"> & { readonly images: readonly string[] };

/** Upper bound on the characters of a token in known vocabularies. A text with more per position cannot fit the context. */
const maxCharactersPerToken = 128;

const defaultMaxTokens = 300;

/** @throws OpenAiError 400 if the messages are not a conversation, or cannot fit into the context */
export function parseChatRequest(request: ChatRequest, model: ModelInfo): ParsedChatRequest {
  const { system, turns, images } = readMessages(request.messages);
  checkLength([system ?? "", ...turns.map(({ text }) => text)], model);
  const [first] = turns;
  const describes = system === undefined && turns.length === 1 && first?.text === "" && images.length === 1;
  return {
    turns: describes ? "describe" : turns,
    system,
    images,
    overflow: "refuse",
    ...generationOptions(request, model),
  };
}

function generationOptions(request: ChatRequest, model: ModelInfo): Omit<ParsedChatRequest, "turns" | "images"> {
  const { temperature, top_p, top_k, n, seed, stop } = request;
  const maxTokens = request.max_completion_tokens ?? request.max_tokens;
  if (maxTokens != null && maxTokens >= model.contextLength) {
    throw openAiError(400, {
      message: `max_tokens is ${maxTokens}, but the context length of the model is ${model.contextLength} tokens for prompt and completion together.`,
      param: request.max_completion_tokens == null ? "max_tokens" : "max_completion_tokens",
      code: "context_length_exceeded",
    });
  }
  // OpenAI's default temperature is 1, at which a small model drifts off; it describes best with greedy decoding. So the default is
  // 0, unless the request asks for sampling in another way: with top_p, top_k or several choices.
  const samples = top_p != null || top_k != null || (n != null && n > 1);
  return {
    temperature: temperature ?? (samples ? 1 : 0),
    topP: top_p ?? undefined,
    topK: top_k ?? undefined,
    repetitionPenalty: request.repetition_penalty ?? undefined,
    numBeams: request.num_beams ?? undefined,
    lengthPenalty: request.length_penalty ?? undefined,
    maxNewTokens: maxTokens ?? Math.min(defaultMaxTokens, Math.floor(model.contextLength / 2)),
    choices: n ?? 1,
    // The engine's default seed is fixed. In OpenAI's API, sampling without a seed gives another completion each time.
    seed: seed == null ? randomInt(2 ** 32) : Math.abs(seed) % 2 ** 32,
    stop: typeof stop === "string" ? [stop] : (stop ?? []),
  };
}

/** Joins system messages, and consecutive messages of one role. Images precede the text of their turn, as in training. */
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
      turns.push({ role: message.role, text, images: message.role === "user" ? urls.length : undefined });
    }
  }
  const lastTurn = turns.at(-1);
  if (lastTurn?.role !== "user") throw messagesError("The last message must have the role user.");
  if (lastTurn.text === "" && !lastTurn.images)
    throw messagesError("The last message is empty. Add a text or an image.");
  return { system: system.length > 0 ? system.join("\n\n") : undefined, turns, images };
}

function readContent(content: NonNullable<Message["content"]>): { readonly text: string; readonly urls: string[] } {
  if (typeof content === "string") return { text: content.trim(), urls: [] };
  const text = content.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n");
  return {
    text: text.trim(),
    urls: content.flatMap((part) => (part.type === "image_url" ? [part.image_url.url] : [])),
  };
}

/** Rejects texts that cannot fit into the context, before they are tokenized. @throws OpenAiError 400 */
export function checkLength(texts: readonly string[], { contextLength }: ModelInfo): void {
  const characters = texts.reduce((sum, text) => sum + text.length, 0);
  if (characters <= contextLength * maxCharactersPerToken) return;
  throw openAiError(400, {
    message: `The text has ${characters} characters and cannot fit into the context length of ${contextLength} tokens.`,
    code: "context_length_exceeded",
  });
}

function messagesError(message: string) {
  return openAiError(400, { message, param: "messages" });
}
