/** A conversation about images: several turns, several images, answers as streams of text. */

import type { Engine, GenerationOptions, ImageInput } from "../engine/engine.ts";
import type { Turn } from "../tokenizers/prompts.ts";

export interface AnswerOptions extends GenerationOptions {
  readonly signal?: AbortSignal;
}

export class Conversation {
  private readonly engine: Engine;
  private readonly system: string | undefined;
  private images: readonly ImageInput[] = [];
  private turns: readonly Turn[] = [];
  private answering = false;

  constructor(engine: Engine, system?: string) {
    this.engine = engine;
    this.system = system;
  }

  /** What was said, oldest first. */
  get history(): readonly Turn[] {
    return this.turns;
  }

  /**
   * Asks about the images so far and those given now. If the answer is broken off or fails, the conversation is as
   * before the question.
   *
   * @throws Error if the question is empty and there is no image, or another question is still being answered;
   *   QuestionError if an image cannot be read or an option is out of its bounds
   */
  async *ask(
    question: string,
    { images = [], signal, ...options }: AnswerOptions & { readonly images?: readonly ImageInput[] } = {},
  ): AsyncGenerator<string, void> {
    if (question.trim() === "" && images.length === 0)
      throw new Error("The question is empty; ask something, or give an image");
    if (this.answering) {
      throw new Error("The previous question is still being answered; wait for its end, or cancel it");
    }
    this.answering = true;
    try {
      const allImages = [...this.images, ...images];
      const turns: Turn[] = [...this.turns, { role: "user", text: question, images: images.length }];
      const asked = { ...options, turns, images: allImages, ...(this.system !== undefined && { system: this.system }) };
      let text = "";
      for await (const event of this.engine.generate(asked, signal)) {
        if (event.kind !== "text") continue;
        text += event.text;
        yield event.text;
      }
      this.turns = [...turns, { role: "assistant", text: text.trim() }];
      this.images = allImages;
    } finally {
      this.answering = false;
    }
  }
}
