import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { image, minigpt4 } from "../../helpers/cli-command.ts";
import { openProject } from "../../helpers/curation-projects.ts";
import { temporaryFolder } from "../../helpers/tiny-model.ts";

const folder = temporaryFolder();

test("writes the dataset, and fails if an image is refused", async () => {
  const store = openProject(folder);
  const target = join(folder, "set");
  const run = () =>
    minigpt4(["curate", "export", target, "--project", join(folder, "project.db"), "--unreviewed", "--json"]);
  const nothing = await run();
  expect(nothing).toMatchObject({ code: 1, stdout: "" });
  expect(nothing.stderr).toMatch(/^error: Nothing to export: .*\n$/);

  for (const name of ["cat.jpg", "gone\u0007.jpg"]) {
    const sha256 = createHash("sha256")
      .update(name === "cat.jpg" ? readFileSync(image(name)) : name)
      .digest("hex");
    store.addImages([{ name, source: { path: image(name) }, sha256 }]);
    const id = store.entries().at(-1)?.image.id ?? 0;
    store.addVersion({ image: id, kind: "described", text: "A cat sits.", author: "nano" });
  }
  const { code, stdout, stderr } = await run();
  expect(code).toBe(1);
  expect(stderr).toMatch(/^error: gone\\u0007\.jpg: .*gone\\u0007\.jpg does not exist any more$/m);
  expect(JSON.parse(stdout)).toMatchObject({ pairs: 1, copied: 1, refused: [{ image: 2 }] });
  expect(existsSync(join(target, "image", "1.jpg"))).toBe(true);
});
