import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { EventFile, markdownTable } from "../../../src/training/metrics/tensorboard.ts";
import { readEvents } from "../../helpers/event-reader.ts";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "minigpt4-events-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const begin = (name: string, firstStep = 0) => EventFile.create(join(root, name), firstStep);

async function files(name: string): Promise<string[]> {
  return (await readdir(join(root, name))).sort().map((file) => join(root, name, file));
}

test("a file begins with the format's version and the start of a session at the first step", async () => {
  const events = await begin("empty", 13);
  await events.close();
  const [path = ""] = await files("empty");
  expect(path).toMatch(/events\.out\.tfevents\.\d{10}\.[\w.-]+$/);
  expect(await readEvents(path)).toMatchObject([
    { step: 0, fileVersion: "brain.Event:2" },
    { step: 13, sessionStatus: 1 },
  ]);
});

test("numbers and texts come back as they were written", async () => {
  const events = await begin("values");
  await events.scalars(2 ** 40, 1_750_000_000.25, { "train/loss": 2.5, "train/learning_rate": 1e-4 });
  await events.scalars(8, 3, { "train/loss": Number.NaN, "train/grad_norm": 1e300 });
  await events.text(9, 4, "samples", "| ä |");
  await events.close();
  const [path = ""] = await files("values");
  expect((await readEvents(path)).slice(2)).toEqual([
    {
      step: 2 ** 40,
      time: 1_750_000_000.25,
      values: [
        { tag: "train/loss", scalar: 2.5 },
        { tag: "train/learning_rate", scalar: Math.fround(1e-4) },
      ],
    },
    {
      step: 8,
      time: 3,
      values: [
        { tag: "train/loss", scalar: Number.NaN },
        { tag: "train/grad_norm", scalar: Number.POSITIVE_INFINITY },
      ],
    },
    { step: 9, time: 4, values: [{ tag: "samples", dtype: 7, text: "| ä |", plugin: "text" }] },
  ]);
});

test("property: whatever is written, frames and checksums hold and values come back", async () => {
  let count = 0;
  const entries = fc.dictionary(fc.string({ unit: "grapheme" }), fc.float());
  await fc.assert(
    fc.asyncProperty(fc.maxSafeNat(), fc.double({ noNaN: true }), entries, async (step, time, values) => {
      const name = `property-${count++}`;
      const events = await begin(name);
      await events.scalars(step, time, values);
      await events.close();
      const [path = ""] = await files(name);
      const [, , event] = await readEvents(path);
      expect(event).toMatchObject({ step, time });
      expect(event?.values).toEqual(Object.entries(values).map(([tag, scalar]) => ({ tag, scalar })));
    }),
    { numRuns: 40 },
  );
});

test("the newest file comes last by name, whatever the clock said before", async () => {
  await (await begin("order")).close();
  await writeFile(join(root, "order", "events.out.tfevents.4000000000.elsewhere.7"), "cut");
  await (await begin("order", 5)).close();
  const [, , last = ""] = await files("order");
  expect(last).toContain("events.out.tfevents.4000000001.");
  expect((await readEvents(last))[1]).toMatchObject({ step: 5, sessionStatus: 1 });
});

test("a table shows its cells letter by letter", () => {
  expect(markdownTable(["image", "text"], [["a_b|c.jpg", "*two* <b>\r\n & one"]])).toBe(
    "| image | text |\n| --- | --- |\n| a\\_b&#124;c\\.jpg | \\*two\\* &#60;b&#62;<br>&#38; one |",
  );
});

test("the reader of these tests notices a flipped bit", async () => {
  await (await begin("damaged")).close();
  const [path = ""] = await files("damaged");
  const bytes = await readFile(path);
  bytes[bytes.length - 6] = (bytes[bytes.length - 6] as number) ^ 1;
  await writeFile(path, bytes);
  await expect(readEvents(path)).rejects.toThrow("checksum");
  expect(new BinaryReader(bytes.subarray(12)).tag()).toEqual([1, 1]);
});
