import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { CurationStore } from "../../../src/curation/store.ts";
import { listPairs } from "../../../src/data/dataset.ts";
import { openDataset } from "../../../src/data/formats/open.ts";
import { ChatServer, said } from "../../helpers/chat-server.ts";
import { minigpt4, outcome, start } from "../../helpers/cli-command.ts";
import { paintImages } from "../../helpers/curation-images.ts";
import { until } from "../../helpers/running-server.ts";
import { temporaryFolder, tinyModel } from "../../helpers/tiny-model.ts";

const folder = temporaryFolder();
const model = tinyModel(folder);
const count = 6;
const good =
  "The image shows a plain wall in one colour. It fills the whole frame, and there is nothing in front of it. " +
  "The light is even, so that no shadows can be seen, and the surface looks smooth and clean.";
const nobody = { OPENAI_API_KEY: "", OPENAI_BASE_URL: "" };

beforeAll(() => paintImages(join(folder, "data"), count));

/** A recipe; paths are written as JSON, which YAML understands. */
function recipe(name: string, more: object): { readonly path: string; readonly project: string; readonly out: string } {
  const at = (ending: string) => join(folder, `${name}${ending}`);
  const own = {
    project: at(".db"),
    images: { path: join(folder, "data") },
    describe: { model, max_new_tokens: 60, temperature: 1, seed: 3 },
    export: { folder: at("-set"), overwrite: true },
  };
  writeFileSync(at(".yaml"), JSON.stringify({ ...own, ...more }));
  return { path: at(".yaml"), project: own.project, out: own.export.folder };
}

test("runs all steps, and after the review exports a dataset", async () => {
  let apologies = 0;
  const server = await ChatServer.start(() => said(apologies++ === 0 ? `I'm sorry I made a mistake. ${good}` : good));
  const { path, project, out } = recipe("whole", { polish: { base_url: server.url, model: "only" } });
  const first = await minigpt4(["curate", "run", path], "", nobody);
  expect(first).toMatchObject({ code: 0 });
  expect(first.stdout).toMatch(/^describe\n {2}6 images described; /);
  expect(first.stdout).toMatch(/\npolish\n {2}polished +6 of 6, by only\n/);
  expect(first.stdout).toMatch(/\nfilter\n {2}6 texts judged.*\n {2}5 pass, 1 dropped\n/);
  expect(first.stdout).toMatch(/\nReview 5 texts: minigpt4 curate review --project .*whole\.db, then run/);
  expect(existsSync(out)).toBe(false);

  const store = CurationStore.open(project);
  const open = store.entries().filter(({ rules }) => rules?.decision === "keep");
  for (const [i, { current }] of open.entries()) {
    const decision = i === 0 ? "drop" : "keep";
    if (current) store.addVerdict({ version: current.id, decision, judge: "person", author: "a" });
  }
  store.close();
  const asked = server.asked.length;
  const second = await minigpt4(["curate", "run", path, "--json"], "", nobody);
  expect(JSON.parse(second.stdout)).toMatchObject({
    describe: { described: 0 },
    polish: { texts: 0 },
    filter: { judged: 0, known: 6 },
    export: { pairs: 4 },
    status: { images: 6, standing: { kept: 4, dropped: 2, open: 0 } },
    next: `Train on it: minigpt4 train recipes/stage2.yaml --set datasets.cc_sbu_align.path=${out}`,
  });
  expect(server.asked).toHaveLength(asked);
  const dataset = await openDataset(out);
  expect(dataset.format).toBe("cc_sbu_align");
  expect((await listPairs(dataset)).map(({ texts }) => texts)).toEqual(Array(4).fill([good]));
});

test("a killed run continues to the same result; exports unreviewed texts on request", async () => {
  const server = await ChatServer.start(() => ({ ...said(good), after: 100 }));
  const polish = { base_url: server.url, model: "only", parallel: 1 };
  const { path, project, out } = recipe("killed", {
    polish,
    export: { folder: join(folder, "killed-set"), unreviewed: true, overwrite: true },
  });
  const child = start(["curate", "run", path], nobody);
  const ended = outcome(child);
  await until(() => server.asked.length >= 3, 60_000);
  child.kill("SIGKILL");
  await ended;
  expect(await minigpt4(["curate", "run", path], "", nobody)).toMatchObject({ code: 0 });
  const store = CurationStore.open(project);
  const kinds = store.entries().map(({ image }) => store.versions(image.id).map(({ kind }) => kind));
  store.close();
  expect(kinds).toEqual(Array(count).fill(["described", "polished"]));
  expect(await listPairs(await openDataset(out))).toHaveLength(count);
});

test("problems of a later step are reported before the first step", async () => {
  const { path, project } = recipe("wrong", { polish: {} });
  const run = (...set: string[]) =>
    minigpt4(["curate", "run", path, ...set.flatMap((one) => ["--set", one])], "", nobody);
  expect(await run()).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^error: The service that polishes is missing/),
  });
  const noRules = await run("polish=null", "filter.rules=nowhere.yaml");
  expect(noRules).toMatchObject({ code: 1, stderr: expect.stringContaining("nowhere.yaml") });
  expect(existsSync(project)).toBe(false);
  rmSync(path);
  expect((await run()).stderr).toMatch(/^error: Recipe .*wrong\.yaml cannot be read/);
});
