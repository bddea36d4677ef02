import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import sharp from "sharp";
import { expect, test } from "vitest";
import { minigpt4 } from "../helpers/cli-command.ts";
import { temporaryFolder } from "../helpers/tiny-model.ts";

const root = temporaryFolder();

/** A run's folder, with a loss that falls from `from` for five steps and is validated at two of them. */
function run(name: string, from = 5, file = "metrics.jsonl"): string {
  const folder = join(root, name);
  mkdirSync(folder, { recursive: true });
  const lines = [1, 2, 3, 4, 5].map((step) => ({
    step,
    time: step,
    kind: "train",
    loss: from - step / 4,
    learning_rate: 1e-4,
  }));
  const validation = [2, 4].map((step) => ({ step, time: step, kind: "validation", loss: from + step / 4 }));
  writeFileSync(join(folder, file), [...lines, ...validation].map((line) => `${JSON.stringify(line)}\n`).join(""));
  return folder;
}

test("plots a run into its folder, and prints the path", async () => {
  const folder = run("falling");
  const path = join(folder, "plot.svg");
  expect(await minigpt4(["plot", folder])).toEqual({ code: 0, stdout: `${path}\n`, stderr: "" });
  const svg = readFileSync(path, "utf8");
  expect(svg).toContain(">falling</text>");
  expect(svg).toContain(">best 5.5 at step 2</text>");
  expect(readdirSync(folder).sort()).toEqual(["metrics.jsonl", "plot.svg"]);
});

test("plots the metrics file of a stage", async () => {
  const folder = run("staged", 5, "metrics.contrastive.jsonl");
  const { stdout } = await minigpt4(["plot", join(folder, "metrics.contrastive.jsonl"), "--log", "--smooth", "0"]);
  expect(stdout).toBe(`${join(folder, "plot.contrastive.svg")}\n`);
  const svg = readFileSync(stdout.trim(), "utf8");
  expect(svg).toContain(">staged/metrics.contrastive</text>");
  expect(svg).toContain(">loss (nats, logarithmic)</text>");
  expect(svg).not.toContain(">smoothed");
});

test("plots several runs into a PNG in a new folder", async () => {
  const path = join(root, "new", "Comparison.PNG");
  const { code, stdout } = await minigpt4(["plot", run("a"), run("b", 6), "-o", path]);
  expect({ code, stdout }).toEqual({ code: 0, stdout: `${path}\n` });
  const { format, width } = await sharp(path).metadata();
  expect({ format, width }).toEqual({ format: "png", width: 1920 });
  const { channels } = await sharp(path).stats();
  expect(channels[0]?.mean).toBeGreaterThan(200);
  expect(channels[0]?.min).toBeLessThan(80);
});

test("--json prints the first, last and best losses without plotting", async () => {
  const folder = run("told");
  const { stdout } = await minigpt4(["plot", folder, "--json"]);
  expect(JSON.parse(stdout)).toEqual({
    runs: [
      {
        path: join(folder, "metrics.jsonl"),
        name: "told",
        steps: 5,
        train: { first: { step: 1, loss: 4.75 }, last: { step: 5, loss: 3.75 }, best: { step: 5, loss: 3.75 } },
        validation: { first: { step: 2, loss: 5.5 }, last: { step: 4, loss: 6 }, best: { step: 2, loss: 5.5 } },
      },
    ],
  });
  expect(existsSync(join(folder, "plot.svg"))).toBe(false);
});

test.each([
  ["a folder without metrics", () => [root], `${root} has no metrics.jsonl`],
  ["a missing path", () => ["nowhere"], "nowhere: no such file or folder"],
  [
    "an unknown extension",
    () => [run("x"), "-o", "plot.jpg"],
    "plot.jpg: expected a file name that ends in .svg or .png, found .jpg",
  ],
  ["two runs and no place", () => [run("x"), run("y")], "add -o FILE.svg"],
  [
    "a run without losses",
    () => {
      writeFileSync(join(run("begun"), "metrics.jsonl"), "");
      return [join(root, "begun")];
    },
    "metrics.jsonl has no losses yet",
  ],
  [
    "a damaged file",
    () => {
      writeFileSync(join(run("damaged"), "metrics.jsonl"), "{}\u001b[2J\n{}\n");
      return [join(root, "damaged")];
    },
    "metrics.jsonl:1: not a metric",
  ],
])("%s is reported in one line", async (_, args, message) => {
  const { code, stdout, stderr } = await minigpt4(["plot", ...args()]);
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  expect(stderr).toMatch(/^error: /);
  expect(stderr).toContain(message);
});
