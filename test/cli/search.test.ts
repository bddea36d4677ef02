import { copyFileSync, existsSync, mkdirSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test, vi } from "vitest";
import { ImageSearch } from "../../src/retrieval/image-search.ts";
import { tinyBlip2 } from "../helpers/blip2-tiny.ts";
import { image, minigpt4, outcome, start } from "../helpers/cli-command.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const root = temporaryFolder();
const folder = join(root, "images");
const model = tinyBlip2(root);
vi.stubEnv("MINIGPT4_CACHE", join(root, "cache"));

beforeAll(() => {
  mkdirSync(join(folder, "below"), { recursive: true });
  mkdirSync(join(root, "empty"));
  copyFileSync(image("cat.jpg"), join(folder, "cat.jpg"));
  copyFileSync(image("rocket.jpg"), join(folder, "below", "rocket.jpg"));
  writeFileSync(join(folder, "broken.png"), "no image");
  for (const name of ["cat.jpg", "below/rocket.jpg", "broken.png"]) utimesSync(join(folder, name), 1e9, 1e9);
});

const search = (...args: readonly string[]) => minigpt4(["search", folder, ...args, "--model", model]);

test("prints rank, score and path; reports broken images once, and keeps the index", async () => {
  const first = await search("a cat");
  expect(first.code).toBe(0);
  expect(first.stderr).toMatch(/^broken\.png is not an image that can be read: .*\nimages indexed 3 of 3 .*\n$/);
  const found = await ImageSearch.open(folder, {
    model,
    index: join(root, "own.images"),
    features: join(root, "features"),
  });
  const expected = await found.search("a cat");
  await found.close();
  const lines = expected.map(({ path, score }, i) => ` ${i + 1}  ${score.toFixed(3).padStart(7)}  ${path}\n`);
  expect(first.stdout).toBe(lines.join(""));
  // Nothing is read again.
  const [best = ""] = lines;
  expect(await search("a cat", "-n", "1")).toEqual({ code: 0, stdout: best.slice(1), stderr: "" });
});

test("--json prints an object per line with both scores; --like searches by an image", async () => {
  const { stdout } = await search("a cat", "--json");
  const objects = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(objects).toEqual(
    [1, 2].map((rank) => ({
      rank,
      path: expect.stringContaining(folder),
      name: expect.stringMatching(/^(cat|below\/rocket)\.jpg$/),
      score: expect.any(Number),
      itc: expect.any(Number),
      itm: expect.any(Number),
      probability: expect.any(Number),
    })),
  );
  for (const { score, itc, itm } of objects) expect(score).toBeCloseTo(itc + itm, 10);
  const like = await search("--like", image("rocket.jpg"), "--json", "--top", "1");
  expect(JSON.parse(like.stdout)).toEqual({
    rank: 1,
    path: join(folder, "below", "rocket.jpg"),
    name: "below/rocket.jpg",
    score: expect.closeTo(1, 2),
    itc: expect.closeTo(1, 2),
  });
});

test.each([
  [[folder], 2, /^error: expected either a text or an image \(--like\)\n/],
  [[folder, "..."], 1, /^error: The text contains no word to embed\.\n$/],
  [[folder, "a cat", "--index", image("cat.jpg")], 1, /cat\.jpg is not an image index, so it is not overwritten/],
  [["nowhere", "a cat"], 1, /^error: nowhere: no such file or folder\n$/],
  [[join(root, "empty"), "a cat"], 1, /empty has no readable images \(\.jpg, /],
] as const)("wrong use: %s", async (args, code, message) => {
  const result = await minigpt4(["search", ...args, "--model", model]);
  expect({ code: result.code, stdout: result.stdout }).toEqual({ code, stdout: "" });
  expect(result.stderr).toMatch(message);
});

test.each(["SIGINT", "SIGKILL"] as const)(
  "stopped by %s while indexing, the next search completes the index",
  async (signal) => {
    const many = join(root, `many-${signal}`);
    mkdirSync(many);
    writeFileSync(join(many, "0-broken.png"), "no image");
    for (let i = 0; i < 40; i++) {
      writeFileSync(
        join(many, `${i}.svg`),
        `<svg xmlns="http://www.w3.org/2000/svg" width="2000" height="2000"><circle r="${i * 9}"/></svg>`,
      );
      utimesSync(join(many, `${i}.svg`), 1e9, 1e9);
    }
    const index = join(root, `${signal}.images`);
    const args = ["search", many, "a circle", "--model", model, "--index", index, "--rerank", "0"];
    const child = start(args);
    // The first image is told of, and the others are still to come.
    child.stderr?.once("data", () => child.kill(signal));
    expect((await outcome(child)).code).toBe(signal === "SIGINT" ? 130 : null);
    // The search process saves what it has embedded, even if its parent was killed.
    expect(existsSync(index)).toBe(true);
    const { code: again, stdout } = await minigpt4(args);
    expect(again).toBe(0);
    expect(stdout.trimEnd().split("\n")).toHaveLength(10);
  },
);
