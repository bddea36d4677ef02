import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { FeatureCache, imageId } from "../../src/data/feature-cache.ts";
import { minigpt4 } from "../helpers/cli-command.ts";

const folder = await mkdtemp(join(tmpdir(), "minigpt4-cache-"));
afterAll(() => rm(folder, { recursive: true }));

test("lists the caches, and clears them", async () => {
  const cache = await FeatureCache.open({ folder, key: "an encoder", shape: [2, 3] });
  await cache.write(imageId(Uint8Array.of(1, 2, 3)), new Float32Array(6).fill(0.5));
  await cache.close();
  const listed = await minigpt4(["cache", "--folder", folder, "--json"]);
  expect(JSON.parse(listed.stdout)).toMatchObject([{ key: "an encoder", rows: 1 }]);
  const cleared = await minigpt4(["cache", "--folder", folder, "--clear"]);
  expect(cleared).toMatchObject({ code: 0, stderr: "" });
  expect(cleared.stdout).toMatch(/removed .* 1 rows .*\nremoved .* total/);
  const after = await minigpt4(["cache", "--folder", folder]);
  expect(after.stdout).toBe(`No cached features in ${folder}\n`);
});
