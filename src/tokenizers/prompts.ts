/** Conversations written as the language model was trained to read them, with places for images. */
import type { TextPart, Tokenizer } from "./tokenizer.ts";

/** One message of a conversation. */
export interface Turn {
  readonly role: "user" | "assistant";
  readonly text: string;
  /** How many images come before the text (default none). */
  readonly images?: number;
}

/** A stretch of a prompt: text, or the place of the image with this number (counted from 0 over the whole prompt). */
type Segment = ({ readonly kind: "text" } & TextPart) | { readonly kind: "image"; readonly index: number };

export interface Prompt {
  readonly segments: readonly Segment[];
}

export interface PromptTemplate {
  readonly name: "vicuna-v0" | "llama-2" | "chatml" | "plain";
  /** Texts at which an answer ends, besides the end-of-sequence token. */
  readonly stop: readonly string[];
  /** What stands right before an answer. */
  readonly answerMark: string;
  /** The prompt of a conversation; it ends where the assistant's next answer begins. */
  render(turns: readonly Turn[], options?: { system?: string }): Prompt;
}

const SYSTEM =
  "Give the following image: <Img>ImageContent</Img>. You will be able to see the image once I provide it to you. " +
  "Please answer my questions.";

/** Where an image goes, in the text form of a prompt. */
const IMAGE = "<ImageHere>";

/** The template of MiniGPT-4 over Vicuna v0. */
export const vicunaV0: PromptTemplate = {
  name: "vicuna-v0",
  stop: ["###"],
  answerMark: "Assistant: ",
  render(turns, { system = SYSTEM } = {}) {
    const prompt = new PromptBuilder().said(system).mark("###");
    for (const turn of turns) {
      prompt.mark(turn.role === "user" ? "Human: " : "Assistant: ");
      markedImages(prompt, turn).mark("###");
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
    const prompt = new PromptBuilder().said(system);
    for (const turn of turns) {
      if (turn.role === "user") prompt.mark("<s>[INST] ");
      markedImages(prompt, turn);
      if (turn.role === "user") prompt.mark(this.answerMark);
    }
    return prompt.build();
  },
};

/** ChatML, as SmolLM2 and others were trained with; images stand before the user's text, each on a line of its own. */
export const chatml: PromptTemplate = {
  name: "chatml",
  stop: ["<|im_end|>"],
  answerMark: "<|im_start|>assistant\n",
  render(turns, { system } = {}) {
    const prompt = new PromptBuilder();
    if (system) prompt.mark("<|im_start|>system\n").said(system).mark("<|im_end|>\n");
    for (const turn of turns) {
      prompt.mark(`<|im_start|>${turn.role}\n`);
      for (let i = 0; i < (turn.images ?? 0); i++) prompt.image().mark("\n");
      prompt.said(turn.text).mark("<|im_end|>\n");
    }
    return prompt.mark(this.answerMark).build();
  },
};

/** No template: images and the text that goes on from them, a line for each answer (the first training stage). */
export const plain: PromptTemplate = {
  name: "plain",
  stop: ["\n"],
  answerMark: "",
  render(turns, { system = "" } = {}) {
    const prompt = new PromptBuilder().said(system);
    for (const turn of turns) {
      for (let i = 0; i < (turn.images ?? 0); i++) prompt.image();
      prompt.said(turn.text);
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
 * A prompt from its text form, in which `<ImageHere>` is an image; control tokens in it are recognised. For templates
 * of recipes and the like, not for what users write.
 */
export function parsePrompt(text: string): Prompt {
  const prompt = new PromptBuilder();
  text.split(IMAGE).forEach((part, i) => {
    if (i > 0) prompt.image();
    prompt.mark(part);
  });
  return prompt.build();
}

/** The text form of a prompt, with `<ImageHere>` for each image. For people to read: it does not say who wrote what. */
export function promptText(prompt: Prompt): string {
  return prompt.segments.map((segment) => (segment.kind === "image" ? IMAGE : segment.text)).join("");
}

/** A prompt in tokens: ids, and between them the images. */
export type PromptPiece = { readonly ids: readonly number[] } | { readonly image: number };

/**
 * Cuts a prompt at its images and tokenises each piece by itself; the beginning-of-sequence token stands only before
 * the first, also where that is an image. Pieces without tokens are left out.
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

/** Images in their marks, one space between them and before the text, as the original joins them. */
function markedImages(prompt: PromptBuilder, { text, images = 0 }: Turn): PromptBuilder {
  for (let i = 0; i < images; i++) {
    if (i > 0) prompt.mark(" ");
    prompt.mark("<Img>").image().mark("</Img>");
  }
  if (images > 0 && text !== "") prompt.mark(" ");
  return prompt.said(text);
}

/** Collects segments: marks are the template's own, and the only text in which control tokens count. */
class PromptBuilder {
  readonly #segments: Segment[] = [];
  #images = 0;

  mark(text: string): this {
    if (text !== "") this.#segments.push({ kind: "text", text });
    return this;
  }

  said(text: string): this {
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

// Captions as the first training stage reads them.

const MAX_WORDS = 50;

/** Lower-cased, `.!"()*#:;~` to spaces, white space to single spaces, at most 50 words (BLIP's caption processor). */
export function cleanCaption(caption: string): string {
  const words = caption
    .toLowerCase()
    .replace(/[.!"()*#:;~]/g, " ")
    .split(/\s+/)
    .filter((word) => word !== "");
  return words.slice(0, MAX_WORDS).join(" ");
}
