/** Descriptions of images by any engine. */
import type { Engine, ImageInput } from "../engine/engine.ts";
import { RequestError } from "../errors.ts";
import type { AnswerOptions } from "./conversation.ts";

type Generator = Pick<Engine, "generate">;

/** Describes one image. @throws RequestError if it cannot be read or an option is out of range */
export async function describeImage(
  engine: Generator,
  image: ImageInput,
  { signal, ...options }: AnswerOptions = {},
): Promise<string> {
  let text = "";
  for await (const event of engine.generate({ ...options, turns: "describe", images: [image] }, signal)) {
    if (event.kind === "text") text += event.text;
  }
  return text.trim();
}

/** Describes images in one batch. The first failure cancels the others. @throws RequestError naming the image */
export async function describeImages(
  engine: Generator,
  images: readonly ImageInput[],
  { signal, ...options }: AnswerOptions = {},
): Promise<string[]> {
  const failing = new AbortController();
  const either = signal ? AbortSignal.any([signal, failing.signal]) : failing.signal;
  return Promise.all(
    images.map(async (image, i) => {
      try {
        return await describeImage(engine, image, { ...options, signal: either });
      } catch (error) {
        const named = typeof image === "string" ? error : nameImage(error, `Image ${i + 1} of ${images.length}`);
        failing.abort(named);
        throw named;
      }
    }),
  );
}

/** An image in memory has no name, so its position says which one is meant. */
function nameImage(error: unknown, name: string): unknown {
  if (!(error instanceof RequestError) || error.code !== "invalid_image") return error;
  return new RequestError(error.code, `${name}: ${error.message}`, { cause: error });
}
