import OpenAI from "openai";
import { expect, test } from "vitest";
import type { EmbeddingInput, Engine } from "../../../src/engine/engine.ts";
import { clientOf, dataUrl, post, serve, tinyEngine } from "../../helpers/running-server.ts";

const engine = await tinyEngine();
const url = dataUrl("cat.jpg");
const bytes = Buffer.from(url.slice(url.indexOf(",") + 1), "base64");

/** The tiny model has no contrastive head; this one tells in its numbers what it was given. */
const withHead: Engine & { seen: readonly EmbeddingInput[] } = {
  seen: [],
  model: { ...engine.model, embeddingSize: 3 },
  generate: (...question) => engine.generate(...question),
  async embed(inputs) {
    this.seen = inputs;
    return inputs.map((input, i) => new Float32Array([i + 0.1, "text" in input ? 1 : 0, -0.25]));
  },
  close: async () => {},
};

test("embeds texts and images as base64 and as numbers", async () => {
  const server = await serve(withHead);
  const client = clientOf(server);
  const { data, usage } = await client.embeddings.create({ model: "tiny", input: ["a cat", "a dog"] });
  const second = [1.1, 1, -0.25].map(Math.fround);
  expect(data.map(({ index, embedding }) => ({ index, embedding: [...embedding] }))[1]).toEqual({
    index: 1,
    embedding: second,
  });
  expect(usage).toHaveProperty("total_tokens");
  const input = ["a cat", { type: "image_url", image_url: { url } }];
  const mixed = await post(`${server.url}/v1/embeddings`, { input, encoding_format: "float" });
  expect(((await mixed.json()) as OpenAI.CreateEmbeddingResponse).data[1]?.embedding).toEqual(
    [1.1, 0, -0.25].map(Math.fround),
  );
  expect(withHead.seen[0]).toEqual({ text: "a cat" });
  expect(bytes.equals((withHead.seen[1] as { image: Uint8Array }).image)).toBe(true);
  const one = await client.embeddings.create({ model: "tiny", input: "a cat", encoding_format: "float" });
  expect(one.data).toHaveLength(1);
});

test("rejects inputs that cannot be embedded", async () => {
  const client = clientOf(await serve(withHead));
  const refusal = (change: object) =>
    client.embeddings.create({ model: "tiny", input: "a", ...change }).catch((error: unknown) => error);
  expect(await refusal({ input: [[1, 2, 3]] })).toMatchObject({ status: 400 });
  expect(await refusal({ input: "" })).toMatchObject({ status: 400 });
  expect(await refusal({ input: [] })).toMatchObject({ status: 400 });
  expect(await refusal({ dimensions: 2 })).toMatchObject({ status: 400, param: "dimensions" });
  expect(await refusal({ model: "other" })).toMatchObject({ status: 404 });
});

test("a model without a contrastive head is an error", async () => {
  const asked = clientOf(await serve(engine)).embeddings.create({ model: "tiny", input: "a cat" });
  const error = await asked.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(OpenAI.BadRequestError);
  expect(String(error)).toContain("has no contrastive head");
});
