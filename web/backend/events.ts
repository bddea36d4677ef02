/** Server-sent events of an answer. */
import { type EventSourceMessage, EventSourceParserStream } from "eventsource-parser/stream";

/** The events as they come, until the answer ends. Who leaves earlier ends the connection. */
export async function* eventsOf({ body }: Response): AsyncGenerator<EventSourceMessage, void> {
  if (!body) return;
  const reader = body
    .pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)
    .pipeThrough(new EventSourceParserStream())
    .getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
