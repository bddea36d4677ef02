import { appendFile, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test, vi } from "vitest";
import { openBrokenLog } from "../../src/training/batch-loader.ts";

const folder = await mkdtemp(join(tmpdir(), "broken-log-"));
afterAll(() => rm(folder, { recursive: true, force: true, maxRetries: 3 }));

const path = join(folder, "broken.jsonl");
const a = { name: "a.png", reason: 'is no "image"' };
const b = { name: "b.png", reason: "is empty" };
const c = { name: "c.png", reason: "is too large" };

const lines = async () => (await readFile(path, "utf8").catch(() => "")).split("\n");

test("each broken sample is logged once, also by later processes and after a half-written line", async () => {
  const first = await openBrokenLog(path);
  for (const problem of [a, b, a]) first(problem);
  await vi.waitFor(async () => expect((await lines()).slice(0, -1).map((line) => JSON.parse(line))).toEqual([a, b]));
  await appendFile(path, '{"name":"c.p');
  const second = await openBrokenLog(path);
  for (const problem of [b, c, a]) second(problem);
  await vi.waitFor(async () => {
    const [, , half, last, ...rest] = await lines();
    expect([half, JSON.parse(last ?? ""), rest]).toEqual(['{"name":"c.p', c, [""]]);
  });
});

test("a log that cannot be written is reported and does not fail", async () => {
  const messages: string[] = [];
  const note = await openBrokenLog(join(folder, "missing", "broken.jsonl"), (message) => messages.push(message));
  note(a);
  await vi.waitFor(() =>
    expect(messages).toEqual([expect.stringMatching(/missing.*broken\.jsonl cannot be written: /)]),
  );
});
