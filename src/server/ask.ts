/** A question's way to the engine and back: waiting for a place, its pictures, the answer, and what is counted of it. */
import type { AnswerEvent } from "../chat/engine/engine.ts";
import type { AddressedQuestion } from "./openai/chat-question.ts";
import { fetchPictures } from "./pictures/pictures.ts";
import type { RequestEnd } from "./request-end.ts";
import type { Service } from "./service.ts";

/**
 * The answer's events. The place is given back when they end, or nobody takes them any more.
 *
 * @throws OpenAiError if there is no place, the time is over or the server stops; whatever fetching pictures and the engine throw
 */
export async function* ask(
  service: Service,
  client: string,
  question: AddressedQuestion,
  end: RequestEnd,
): AsyncGenerator<AnswerEvent, void> {
  const { signal } = end;
  const asked = performance.now();
  let begun: Extract<AnswerEvent, { kind: "begin" }> | undefined;
  let firstText = true;
  let open = question.choices ?? 1;
  let reason: "cancelled" | "error" = "cancelled";
  try {
    const leave = await service.admission.enter(client, signal);
    try {
      const pictures = await fetchPictures(question.pictures, service.pictures, signal);
      for await (const event of service.engine.answer({ ...question, pictures }, signal)) {
        if (event.kind === "begin") begun = event;
        if (event.kind === "text" && begun && firstText) {
          firstText = false;
          service.metrics.answerBegun({ ...begun, secondsToFirstToken: (performance.now() - asked) / 1000 });
        }
        if (event.kind === "end") {
          open--;
          service.metrics.answerEnded(event);
        }
        yield event;
      }
      // An engine may end an aborted answer without a word.
      signal.throwIfAborted();
    } catch (error) {
      if (!signal.aborted) reason = "error";
      throw signal.aborted ? signal.reason : error;
    } finally {
      leave();
      if (begun) for (; open > 0; open--) service.metrics.answerEnded({ tokens: 0, reason });
    }
  } finally {
    end.release();
  }
}
