/**
 * The language model as its own teacher: what it would say next, word for word, once it has read what other people said of
 * the same picture. A model that learns these probabilities beside the words themselves learns which other words would have
 * been right too, and is less tempted to know few pictures by heart. (Knowledge distillation, Hinton et al., arXiv
 * 1503.02531; from a teacher who knows more than the pupil will be shown, Lopez-Paz et al., arXiv 1511.03643.)
 */
import type { OpenLlama } from "../models/open-llama.ts";
import { type Target, targetsOf } from "./batch.ts";
import { type LessonOptions, type Lessons, openLessons } from "./lessons.ts";

export class Teacher {
  private readonly lessons: Lessons;
  private readonly share: number;
  private readonly end: number | undefined;

  private constructor(lessons: Lessons, share: number, end: number | undefined) {
    this.lessons = lessons;
    this.share = share;
    this.end = end;
  }

  /**
   * @param pictures the texts of each picture, in tokens; a picture with one text has nothing to teach
   * @param share how much of each target is the teacher's; the rest is the text's own token
   */
  static async open(
    llm: OpenLlama,
    pictures: readonly (readonly (readonly number[])[])[],
    share: number,
    options: LessonOptions,
  ): Promise<Teacher> {
    return new Teacher(await openLessons(llm, pictures, options), share, options.form.end[0]);
  }

  /**
   * An answer with what the teacher says to it.
   *
   * @param text one of those that were read, the same array
   * @param end ends the answer; its first token stands for the end that the teacher has read
   */
  targets(text: readonly number[], end: readonly number[]): Target[] {
    const lesson = this.lessons.get(text);
    const answer = [...text, ...end];
    if (!lesson) return targetsOf(answer);
    return answer.map((id, i) => {
      const prediction = lesson[i];
      if (!prediction) return { id };
      const ids = prediction.ids.map((other) => (other === this.end ? (end[0] ?? other) : other));
      return { id, others: { ids, shares: prediction.probabilities.map((p) => p * this.share) } };
    });
  }
}
