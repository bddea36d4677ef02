/** Prompt templates: conversations in the format that a language model was trained with, with placeholders for images; and captions. */
import type { TextPart, Tokenizer } from "./tokenizer.ts";

/** One message of a conversation. */
export interface Turn {
  readonly role: "user" | "assistant";
  readonly text: string;
  /** How many images come before the text (default none). */
  readonly images?: number;
}

/** A part of a prompt: text, or an image by its index in the whole prompt. */
export type Segment = ({ readonly kind: "text" } & TextPart) | { readonly kind: "image"; readonly index: number };

export interface Prompt {
  readonly segments: readonly Segment[];
}

export interface PromptTemplate {
  readonly name: "vicuna-v0" | "llama-2" | "chatml" | "plain";
  /** Stop strings, in addition to the end-of-sequence token. */
  readonly stop: readonly string[];
  /** The text before an answer. */
  readonly answerMark: string;
  /** The prompt of a conversation, up to where the assistant's next answer starts. */
  render(turns: readonly Turn[], options?: { system?: string }): Prompt;
}

const SYSTEM =
  "Give the following image: <Img>ImageContent</Img>. You will be able to see the image once I provide it to you. " +
  "Please answer my questions.";

/** Placeholder of an image in the text of a prompt. */
const IMAGE = "<ImageHere>";

/** The template of MiniGPT-4 over Vicuna v0. */
export const vicunaV0: PromptTemplate = {
  name: "vicuna-v0",
  stop: ["###"],
  answerMark: "Assistant: ",
  render(turns, { system = SYSTEM } = {}) {
    const prompt = new PromptBuilder().literal(system).mark("###");
    for (const turn of turns) {
      prompt.mark(turn.role === "user" ? "Human: " : "Assistant: ");
      addTurn(prompt, turn).mark("###");
    }
    return prompt.mark(this.answerMark).build();
  },
};

/** The template of MiniGPT-4 over Llama 2 chat. */
export const llama2: PromptTemplate = {
  name: "llama-2",
  stop: [],
  answerMark: " [/INST] ",
  render(turns, { system = SYSTEM } = {}) {
    const prompt = new PromptBuilder().literal(system);
    for (const turn of turns) {
      if (turn.role === "user") prompt.mark("<s>[INST] ");
      addTurn(prompt, turn);
      if (turn.role === "user") prompt.mark(this.answerMark);
    }
    return prompt.build();
  },
};

/** ChatML, the template of SmolLM2 and others. Images come before the user's text, each on its own line. */
export const chatml: PromptTemplate = {
  name: "chatml",
  stop: ["<|im_end|>"],
  answerMark: "<|im_start|>assistant\n",
  render(turns, { system } = {}) {
    const prompt = new PromptBuilder();
    if (system) prompt.mark("<|im_start|>system\n").literal(system).mark("<|im_end|>\n");
    for (const turn of turns) {
      prompt.mark(`<|im_start|>${turn.role}\n`);
      for (let i = 0; i < (turn.images ?? 0); i++) prompt.image().mark("\n");
      prompt.literal(turn.text).mark("<|im_end|>\n");
    }
    return prompt.mark(this.answerMark).build();
  },
};

/** No template: images and the text that follows them, one line per answer (the first training stage). */
export const plain: PromptTemplate = {
  name: "plain",
  stop: ["\n"],
  answerMark: "",
  render(turns, { system = "" } = {}) {
    const prompt = new PromptBuilder().literal(system);
    for (const turn of turns) {
      for (let i = 0; i < (turn.images ?? 0); i++) prompt.image();
      prompt.literal(turn.text);
      if (turn.role === "assistant") prompt.mark("\n");
    }
    return prompt.build();
  },
};

/**
 * The prompt templates by name.
 *
 * @example
 * ```ts
 * import { promptTemplates } from "minigpt4";
 *
 * const { segments } = promptTemplates["llama-2"].render([{ role: "user", text: "What is this?", images: 1 }]);
 * console.log(segments);
 * ```
 */
export const promptTemplates: Readonly<Record<PromptTemplate["name"], PromptTemplate>> = {
  "vicuna-v0": vicunaV0,
  "llama-2": llama2,
  chatml,
  plain,
};

/**
 * Parses a prompt in which `<ImageHere>` is an image. Control tokens in it are recognized, so it is for templates, not for
 * user input.
 */
export function parsePrompt(text: string): Prompt {
  const prompt = new PromptBuilder();
  text.split(IMAGE).forEach((part, i) => {
    if (i > 0) prompt.image();
    prompt.mark(part);
  });
  return prompt.build();
}

/** The text of a prompt, with `<ImageHere>` for each image, for display: it does not separate template from user input. */
export function promptText(prompt: Prompt): string {
  return prompt.segments.map((segment) => (segment.kind === "image" ? IMAGE : segment.text)).join("");
}

/** A tokenized prompt: runs of token ids, and the images between them. */
export type PromptPiece = { readonly ids: readonly number[] } | { readonly image: number };

/**
 * Splits a prompt at its images and tokenizes each text by itself. The beginning-of-sequence token comes only at the start,
 * even before an image. Texts without tokens are omitted.
 */
export function tokenizePrompt(prompt: Prompt, tokenizer: Tokenizer): PromptPiece[] {
  const pieces: PromptPiece[] = [];
  let run: TextPart[] = [];
  const finishRun = () => {
    const ids = tokenizer.encode(run, { bos: pieces.length === 0 });
    if (ids.length > 0) pieces.push({ ids });
    run = [];
  };
  for (const segment of prompt.segments) {
    if (segment.kind === "text") {
      run.push(segment);
    } else {
      finishRun();
      pieces.push({ image: segment.index });
    }
  }
  finishRun();
  return pieces;
}

/** Images in `<Img>` tags, with one space between them and before the text, as in the original. */
function addTurn(prompt: PromptBuilder, { text, images = 0 }: Turn): PromptBuilder {
  for (let i = 0; i < images; i++) {
    if (i > 0) prompt.mark(" ");
    prompt.mark("<Img>").image().mark("</Img>");
  }
  if (images > 0 && text !== "") prompt.mark(" ");
  return prompt.literal(text);
}

/** Collects segments. `mark` is for text of the template, in which control tokens are recognized, `literal` for user input. */
class PromptBuilder {
  readonly #segments: Segment[] = [];
  #images = 0;

  mark(text: string): this {
    if (text !== "") this.#segments.push({ kind: "text", text });
    return this;
  }

  literal(text: string): this {
    if (text !== "") this.#segments.push({ kind: "text", text, literal: true });
    return this;
  }

  image(): this {
    this.#segments.push({ kind: "image", index: this.#images++ });
    return this;
  }

  build(): Prompt {
    return { segments: this.#segments };
  }
}

const MAX_WORDS = 50;

/** A caption as in the first training stage: lower-cased, `.!"()*#:;~` to spaces, single spaces, at most 50 words (BLIP's caption processor). */
export function cleanCaption(caption: string): string {
  const words = caption
    .toLowerCase()
    .replace(/[.!"()*#:;~]/g, " ")
    .split(/\s+/)
    .filter((word) => word !== "");
  return words.slice(0, MAX_WORDS).join(" ");
}
