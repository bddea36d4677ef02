import { readFileSync } from "node:fs";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, streamText } from "ai";
import { expect, test } from "vitest";
import { image } from "../../helpers/cli-command.ts";
import { serve, tinyEngine } from "../../helpers/running-server.ts";

const engine = await tinyEngine();

test("works with the AI SDK, as one object and streamed", async () => {
  const { url } = await serve(engine);
  const model = createOpenAICompatible({ name: "local", baseURL: `${url}/v1` })("tiny");
  const request = {
    model,
    maxOutputTokens: 12,
    messages: [
      {
        role: "user" as const,
        content: [
          { type: "image" as const, image: readFileSync(image("cat.jpg")) },
          { type: "text" as const, text: "What is this?" },
        ],
      },
    ],
  };
  const whole = await generateText(request);
  expect(whole.text).not.toBe("");
  expect(whole.usage.outputTokens).toBe(12);
  expect(whole.finishReason).toBe("length");
  const stream = streamText(request);
  const pieces: string[] = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  expect(pieces.length).toBeGreaterThan(3);
  expect(pieces.join("")).toBe(whole.text);
});

test("an error reaches it as its own error class", async () => {
  const { url } = await serve(engine);
  const model = createOpenAICompatible({ name: "local", baseURL: `${url}/v1` })("other");
  const error = await generateText({ model, prompt: "Hello", maxRetries: 0 }).catch((reason: unknown) => reason);
  expect(APICallError.isInstance(error) && error.statusCode).toBe(404);
  expect(error).toMatchObject({ message: 'Unknown model "other". This server has "tiny".' });
});
