/** The training page during a run. */
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { type Metric, MetricsLog } from "../../src/training/metrics/metrics.ts";
import { expectAccessible } from "../helpers/browser.ts";
import { setStage } from "../helpers/page.ts";
import { serve } from "../helpers/serve.ts";

const { folder, model, open } = setStage();

const train = (step: number, loss: number): Metric => ({
  kind: "train",
  step,
  time: Date.now() / 1000,
  loss,
  learning_rate: 1e-3 / step,
  tokens_per_second: 321,
});

test("shows and updates the curves and descriptions of a run", async () => {
  const runs = join(folder, "runs");
  const server = await serve(model, { flags: ["--runs", runs] });
  onTestFinished(() => server.kill());
  const page = await open({}, { url: `${server.url}/#/training` });
  await page.getByText("No training runs yet").waitFor();
  await expectAccessible(page);

  const log = await MetricsLog.open(join(runs, "first"));
  onTestFinished(() => log.close());
  await log.write({ kind: "validation", step: 0, time: Date.now() / 1000, loss: 5.25 });
  for (let step = 1; step <= 20; step++) await log.write(train(step, 5 - step / 10));
  const sample = { image: "a/b/cat.jpg", text: "<b>a cat</b>" };
  await log.write({ kind: "samples", step: 20, time: Date.now() / 1000, samples: [sample] });
  await page.reload();
  const fact = (name: string) =>
    page.locator(".facts div", { has: page.getByText(name, { exact: true }) }).locator("dd");
  await page.getByText("5.250 at step 0").waitFor();
  expect(await fact("Step").textContent()).toBe("20");
  // What a model says is text, whatever it looks like.
  await page.getByText("<b>a cat</b>").waitFor();
  expect(await page.getByText("cat.jpg").count()).toBe(1);
  await page.getByRole("img", { name: "Loss of first by step" }).locator("canvas").waitFor();
  expect(await drawn(page)).toBeGreaterThan(100);
  await expectAccessible(page);

  await log.write(train(21, 1));
  await log.write({ kind: "validation", step: 21, time: Date.now() / 1000, loss: 2.5 });
  await page.getByText("2.500 at step 21").waitFor();
  expect(await fact("Step").textContent()).toBe("21");
  expect(await page.getByText("live", { exact: true }).count()).toBe(1);
});

/** Pixels of the first chart that are in the colour of the smoothed curve. */
function drawn(page: Awaited<ReturnType<typeof open>>): Promise<number> {
  return page.evaluate(`(() => {
    const canvas = document.querySelector(".chart canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let i = 0; i < data.length; i += 4) if (data[i] === 0xb0 && data[i + 1] === 0x78 && data[i + 2] === 0) count++;
    return count;
  })()`);
}
