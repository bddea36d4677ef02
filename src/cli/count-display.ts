/** Work that is counted, as it is shown on standard error: a bar on a terminal, a line now and then elsewhere. */
import cliProgress from "cli-progress";
import { formatDuration } from "./text.ts";

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
