/** A conversation about images: several turns, each with any number of images, and generated answers. */

import { z } from "zod";
import type { Engine, GenerationOptions, ImageInput } from "../engine/engine.ts";
import { RequestError } from "../errors.ts";
import type { FinishReason } from "../generation/generate.ts";
import type { Turn } from "../tokenizers/prompts.ts";

/** How an answer is generated. */
export interface AnswerOptions extends GenerationOptions {
  /** Cancels the answer when it is aborted. */
  readonly signal?: AbortSignal;
}

export interface QuestionOptions extends AnswerOptions {
  /** New images that the question is about, in addition to those of earlier questions. */
  readonly images?: readonly ImageInput[];
}

/** Tokens that a request took. */
export interface Usage {
  /** Positions of the prompt: the whole conversation, including its images. */
  readonly promptTokens: number;
  /** How many of them were cached from earlier requests and not computed again. */
  readonly cachedTokens: number;
  /** Generated tokens. */
  readonly completionTokens: number;
}

export interface Answer {
  readonly text: string;
  /** `"stop"` if the answer is complete, `"length"` if it reached `maxNewTokens`. */
  readonly finishReason: FinishReason;
  readonly usage: Usage;
}

const version = 1;

/** Built when it is needed: zod probes `eval` for it, which pages with a content security policy report. */
function conversationSchema() {
  return z.strictObject({
    version: z.literal(version, `this version reads conversations of version ${version}`),
    /** System prompt. */
    system: z.string().optional(),
    turns: z
      .array(
        z.discriminatedUnion("role", [
          z.strictObject({
            role: z.literal("user"),
            text: z.string(),
            /** A path, or the encoded image in base64. */
            images: z.array(z.union([z.string().min(1), z.strictObject({ base64: z.base64() })])).default([]),
          }),
          z.strictObject({ role: z.literal("assistant"), text: z.string() }),
        ]),
      )
      .refine((turns) => turns.length % 2 === 0, "the last question has no answer")
      .refine(
        (turns) => turns.every(({ role }, i) => role === (i % 2 === 0 ? "user" : "assistant")),
        "turns of user and assistant must alternate, starting with the user",
      ),
  });
}

/** A conversation as JSON: its turns with their images (paths stay paths, bytes are base64), and the system prompt. */
export type ConversationJson = z.input<ReturnType<typeof conversationSchema>>;

export interface ChatOptions {
  /** System prompt, in place of the template's own. */
  readonly system?: string;
  /** A conversation to continue: what `JSON.stringify(chat)` wrote, parsed. It brings its own system prompt. */
  readonly from?: ConversationJson;
}

/**
 * A conversation with a model. Each question is understood in the context of all earlier turns and images.
 *
 * @example
 * ```ts
 * import { MiniGPT4 } from "minigpt4";
 *
 * await using model = await MiniGPT4.load("nano");
 * const chat = model.chat();
 * for await (const text of chat.ask("What is the cat doing?", { images: ["cat.jpg"] })) process.stdout.write(text);
 * const { text, usage } = await chat.answer("And what colour is it?");
 * console.log(text, usage.completionTokens);
 * ```
 */
export class Conversation {
  private readonly engine: Engine;
  private readonly system: string | undefined;
  private images: readonly ImageInput[] = [];
  private turns: readonly Turn[] = [];
  private isAnswering = false;

  /** @param system system prompt, in place of the template's own */
  constructor(engine: Engine, system?: string) {
    this.engine = engine;
    this.system = system;
  }

  /**
   * Restores a conversation from the value of {@link toJSON}, on any model. Paths are read like those given to {@link ask}, so
   * restore only files that you trust to name images of this machine.
   *
   * @throws RequestError naming each field that is invalid
   *
   * @example
   * ```ts
   * import { readFile } from "node:fs/promises";
   * import { Conversation, MiniGPT4 } from "minigpt4";
   *
   * await using model = await MiniGPT4.load("nano");
   * const chat = Conversation.fromJSON(model.engine, JSON.parse(await readFile("chat.json", "utf8")));
   * console.log(chat.history.length);
   * ```
   */
  static fromJSON(engine: Engine, value: unknown): Conversation {
    const { data, error } = conversationSchema().safeParse(value);
    if (!data) {
      throw new RequestError("invalid_request", `This is not a saved conversation:\n${z.prettifyError(error)}`);
    }
    const conversation = new Conversation(engine, data.system);
    conversation.turns = data.turns.map((turn) =>
      turn.role === "user" ? { ...turn, images: turn.images.length } : turn,
    );
    conversation.images = data.turns.flatMap((turn) =>
      turn.role === "user"
        ? turn.images.map((image) => (typeof image === "string" ? image : fromBase64(image.base64)))
        : [],
    );
    return conversation;
  }

  /** All turns so far, oldest first. */
  get history(): readonly Turn[] {
    return this.turns;
  }

  /**
   * Streams the answer to a question about the images so far and those given now. If the answer is cancelled or fails, the
   * conversation is as before the question.
   *
   * @throws RequestError if the question is empty and has no image, another question is still being answered, an image
   *   cannot be read, or an option is out of range
   */
  async *ask(question: string, options: QuestionOptions = {}): AsyncGenerator<string, void> {
    yield* this.stream(question, options);
  }

  /**
   * Answers a question as {@link ask} does, but returns the whole text, why it ended, and the number of tokens.
   *
   * @throws RequestError as {@link ask}
   *
   * @example
   * ```ts
   * import { MiniGPT4 } from "minigpt4";
   *
   * await using model = await MiniGPT4.load("nano");
   * const { text, finishReason, usage } = await model.chat().answer("What is this?", { images: ["cat.jpg"], maxNewTokens: 40 });
   * console.log(text, finishReason === "length" ? "(cut off)" : "", usage.promptTokens);
   * ```
   */
  async answer(question: string, options: QuestionOptions = {}): Promise<Answer> {
    const stream = this.stream(question, options);
    for (;;) {
      const { done, value } = await stream.next();
      if (done) return value;
    }
  }

  /** The conversation for `JSON.stringify`; `model.chat({ from })` restores it. */
  toJSON(): ConversationJson {
    let next = 0;
    const turns = this.turns.map(({ role, text, images = 0 }): ConversationJson["turns"][number] => {
      if (role === "assistant") return { role, text };
      const own = this.images.slice(next, next + images);
      next += images;
      return {
        role,
        text,
        images: own.map((image) => (typeof image === "string" ? image : { base64: toBase64(image) })),
      };
    });
    return { version, system: this.system, turns };
  }

  private async *stream(
    question: string,
    { images = [], signal, ...options }: QuestionOptions,
  ): AsyncGenerator<string, Answer> {
    if (question.trim() === "" && images.length === 0) {
      throw new RequestError("invalid_request", "The question is empty. Pass a text or an image.");
    }
    if (this.isAnswering) {
      throw new RequestError(
        "invalid_request",
        "The previous question is still being answered. Wait for the end of its answer, or cancel it.",
      );
    }
    this.isAnswering = true;
    try {
      const allImages = [...this.images, ...images];
      const turns: Turn[] = [...this.turns, { role: "user", text: question, images: images.length }];
      const request = { ...options, turns, images: allImages, system: this.system };
      const usage = { promptTokens: 0, cachedTokens: 0, completionTokens: 0 };
      let finishReason: FinishReason = "stop";
      let text = "";
      for await (const event of this.engine.generate(request, signal)) {
        if (event.kind === "text") {
          text += event.text;
          yield event.text;
        } else if (event.kind === "begin") {
          usage.promptTokens = event.promptTokens;
          usage.cachedTokens = event.cachedTokens;
        } else {
          usage.completionTokens = event.tokens;
          finishReason = event.reason;
        }
      }
      text = text.trim();
      this.turns = [...turns, { role: "assistant", text }];
      this.images = allImages;
      return { text, finishReason, usage };
    } finally {
      this.isAnswering = false;
    }
  }
}

// `Buffer` is missing in a browser.
function toBase64(bytes: Uint8Array): string {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

function fromBase64(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
