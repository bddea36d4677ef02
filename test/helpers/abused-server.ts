/** A server that is treated badly, and what is to be true of it all the while. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, expect } from "vitest";
import { startServer } from "../../src/server/serve.ts";
import { tinyEngine } from "./running-server.ts";

export const maxBodyBytes = 2_000_000;
const engine = await tinyEngine();
export const server = await startServer({ engine, port: 0, maxBodyBytes, maxConcurrent: 4, maxQueue: 500 });
afterAll(() => server.close(1000));
export const port = Number(new URL(server.url).port);

export interface Answer {
  readonly status: number;
  readonly text: string;
}

/** A body as it is sent: what is no text or bytes is written as JSON. */
export async function ask(body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await fetch(`${server.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body:
      typeof body === "string" || body instanceof Uint8Array ? new Uint8Array(Buffer.from(body)) : JSON.stringify(body),
  });
  return { status: response.status, text: await response.text() };
}

export function question(content: unknown = "What is this?", more: Record<string, unknown> = {}) {
  return { messages: [{ role: "user", content }], max_tokens: 3, temperature: 0, ...more };
}

export function imageQuestion(...images: (Uint8Array | string)[]) {
  return question(
    images.map((image) => {
      const url = typeof image === "string" ? image : `data:image/png;base64,${Buffer.from(image).toString("base64")}`;
      return { type: "image_url", image_url: { url } };
    }),
  );
}

export function expectError({ status, text }: Answer, expected: number | readonly number[]): void {
  expect([expected].flat(), text).toContain(status);
  expect(JSON.parse(text)).toEqual({
    error: {
      message: expect.stringMatching(/\S/),
      type: expect.any(String),
      param: text.includes('"param":null') ? null : expect.any(String),
      code: text.includes('"code":null') ? null : expect.any(String),
    },
  });
  // Nothing of the machine: no folders, no lines of code.
  expect(text).not.toMatch(/node_modules|\/src\/|\.ts:|\bat .*:\d+/);
}

export async function expectWell(): Promise<void> {
  const answer = await ask(question());
  expect(answer.status, answer.text).toBe(200);
}

export async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const lines = text.split("\n").filter((line) => line.startsWith(`minigpt4_${name}`));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

/** Bytes in use after what can be freed was freed. */
function usedMemory(): number {
  setFlagsFromString("--expose-gc");
  runInNewContext("gc")();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** Whether the server answers, nobody is left behind, nothing has failed that should not, and the memory is what it was. */
export async function expectAsBefore(): Promise<void> {
  await expectWell();
  await expect.poll(() => metric("questions_running"), { timeout: 10_000 }).toBe(0);
  expect(await metric("questions_waiting")).toBe(0);
  expect(await metric('http_requests_total{route="/v1/chat/completions",status="500"}')).toBe(0);
  expect(usedMemory() - memoryBefore).toBeLessThan(60_000_000);
}

for (let i = 0; i < 20; i++) await ask(question());
const memoryBefore = usedMemory();
