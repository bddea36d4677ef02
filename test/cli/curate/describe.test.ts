import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { CurationStore } from "../../../src/curation/store.ts";
import { minigpt4, startInProcess } from "../../helpers/cli-command.ts";
import { paintImages } from "../../helpers/curation-images.ts";
import { until } from "../../helpers/running-server.ts";
import { temporaryFolder, tinyModel } from "../../helpers/tiny-model.ts";

const folder = temporaryFolder();
const model = tinyModel(folder);
const data = join(folder, "data");
const project = (name: string) => join(folder, name);
const describe = (name: string, ...more: readonly string[]) => [
  ...["curate", "describe", "--project", project(name), "--model", model, "--max-new-tokens", "5"],
  ...more,
];

beforeAll(async () => {
  await paintImages(data, 10);
  writeFileSync(join(data, "garbage.jpg"), "no image");
});

function texts(name: string): Record<string, string | undefined> {
  const store = CurationStore.open(project(name));
  const found = store.entries().map(({ image, current }) => [image.sha256, current?.text] as const);
  store.close();
  return Object.fromEntries(found);
}

test("creates a project, continues without the dataset, and adds images later", async () => {
  const first = await minigpt4(describe("a.db", data, "--count", "4", "--json"));
  expect(first.code).toBe(0);
  const report = JSON.parse(first.stdout);
  expect(report).toMatchObject({ described: 4 - report.failed, givenUp: 0 });
  const some = texts("a.db");
  expect(Object.keys(some)).toHaveLength(4);
  const more = await minigpt4(describe("a.db", data));
  expect(more.stderr).toMatch(/7 of 11 images added to .*a\.db; 4 already in it/);
  expect(more.stderr).toContain("garbage.jpg is not an image that can be read");
  expect(more.stdout).toMatch(/images described; .* continued, .*; 1 failed; run the same command again/);
  expect(texts("a.db")).toMatchObject(some);
  // Tried once or twice so far, for the last time, and no more.
  for (let again = 0; again < 2; again++) await minigpt4(describe("a.db"));
  expect((await minigpt4(describe("a.db"))).stdout).toBe("0 images described; 1 failed too often and are skipped\n");
  const status = await minigpt4(["curate", "status", "--project", project("a.db"), "--json"]);
  expect(JSON.parse(status.stdout)).toMatchObject({
    images: 11,
    steps: { describe: { in: 11, out: 10 } },
    failures: { describe: 1 },
  });
  const table = await minigpt4(["curate", "status", "--project", project("a.db")]);
  expect(table.stdout).toMatch(/^describe +11 +10 +1 failed$/m);
});

test("uses the paper's prompt for the vicuna-v0 template, and the trained prompt otherwise", async () => {
  const other = tinyModel(folder, "chatty", () => ({ prompt_template: "plain" }));
  for (const [name, path, prompt] of [
    ["b.db", model, "Describe this image in detail. Give as many details as possible. Say everything you see."],
    ["c.db", other, "describe"],
  ] as const) {
    expect(await minigpt4(describe(name, data, "--count", "2", "--model", path))).toMatchObject({ code: 0 });
    const store = CurationStore.open(project(name));
    const prompts = store.entries().flatMap(({ current }) => (current ? [current.prompt] : []));
    store.close();
    expect(new Set(prompts)).toEqual(new Set([prompt]));
  }
});

test("Ctrl-C exits with 130 and keeps finished descriptions", async () => {
  const command = startInProcess(describe("d.db", data, "--parallel", "1"));
  await command.stderr.match(/images added/);
  await until(() => Object.values(texts("d.db")).some((text) => text !== undefined), 30_000);
  command.interrupt();
  expect(await command.outcome).toMatchObject({ code: 130 });
  expect(await minigpt4(describe("d.db"))).toMatchObject({ code: 0 });
  expect(Object.values(texts("d.db")).filter((text) => text !== undefined)).toHaveLength(10);
});

test.each([
  [[], /^error: .*none\.db does not exist; create a project with `minigpt4 curate describe DATA`\n$/],
  [["nowhere"], /^error: nowhere does not exist; expected one of:\n/],
  [[join(folder, "tiny")], /^error: .*tiny is not in a supported format; expected one of:\n/],
  [[data, "--model", "enormous"], /^error: No model "enormous"/],
])("reports wrong arguments and creates no project: %j", async (more, message) => {
  const { code, stdout, stderr } = await minigpt4(describe("none.db", ...more));
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr).toMatch(message);
  expect(existsSync(project("none.db"))).toBe(false);
});
