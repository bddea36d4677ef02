/** The metrics of a training run: one JSON object a line in `metrics.jsonl`, and TensorBoard event files. */
import { type FileHandle, mkdir, open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../files/atomic.ts";
import { quote, unlessMissing } from "../../files/errors.ts";
import { EventFile, markdownTable } from "./tensorboard.ts";

/** JSON cannot represent numbers that are not finite: they are written as null and read as NaN. */
const number = z
  .number()
  .nullable()
  .transform((value) => value ?? Number.NaN);

const header = {
  /** Completed steps, this one included. */
  step: z.int().min(0),
  /** Unix seconds. */
  time: z.number(),
};

const metricSchema = z.discriminatedUnion("kind", [
  z
    .object({
      ...header,
      kind: z.literal("train"),
      /** Cross-entropy in nats. */
      loss: number,
      /** Parts of the loss, where it has several. */
      terms: z.record(z.string(), number).optional(),
      learning_rate: number,
      grad_norm: number.optional(),
      tokens_per_second: number.optional(),
      /** Share of the step's time that was spent waiting for data. */
      data_share: number.optional(),
    })
    .readonly(),
  z.object({ ...header, kind: z.literal("validation"), loss: number }).readonly(),
  z
    .object({
      ...header,
      kind: z.literal("samples"),
      samples: z.array(z.object({ image: z.string(), text: z.string() }).readonly()).readonly(),
    })
    .readonly(),
]);

export type Metric = z.infer<typeof metricSchema>;

export interface MetricsLogOptions {
  /** Completed steps of the run that is resumed. @default a new run */
  readonly resumeAt?: number;
  /** A stage with steps of its own, in `metrics.STAGE.jsonl` and `tensorboard/STAGE/`. */
  readonly stage?: string;
}

/** Writes the metrics of a run. Await each call before the next. */
export class MetricsLog {
  private readonly lines: FileHandle;
  private readonly events: EventFile;

  private constructor(lines: FileHandle, events: EventFile) {
    this.lines = lines;
    this.events = events;
  }

  /**
   * Opens `metrics.jsonl` and a new event file in `tensorboard/` in the run's folder. With `resumeAt`, later steps are removed, so
   * that each step is there once; without it, an old `metrics.jsonl` is replaced.
   *
   * @throws Error naming file and line if the run is resumed and a line other than the last is not a metric
   */
  static async open(folder: string, { resumeAt, stage }: MetricsLogOptions = {}): Promise<MetricsLog> {
    await mkdir(folder, { recursive: true });
    const path = join(folder, stage === undefined ? "metrics.jsonl" : `metrics.${stage}.jsonl`);
    const kept = resumeAt === undefined ? [] : await linesUntil(path, resumeAt);
    await writeFileAtomic(path, kept.map((line) => `${line}\n`).join(""));
    const firstStep = resumeAt === undefined ? 0 : resumeAt + 1;
    const events = await EventFile.create(join(folder, "tensorboard", stage ?? ""), firstStep);
    return new MetricsLog(await open(path, "a"), events);
  }

  async write(metric: Metric): Promise<void> {
    await this.lines.appendFile(`${JSON.stringify(metric)}\n`);
    const { step, time, kind, ...values } = metric;
    if ("samples" in values) {
      const rows = values.samples.map(({ image, text }) => [image, text]);
      await this.events.text(step, time, kind, markdownTable(["image", "text"], rows));
      return;
    }
    const { terms = {}, ...others } = values as { readonly terms?: Readonly<Record<string, number>> };
    const measured = Object.entries({ ...others, ...terms }).filter(([, value]) => value !== undefined);
    await this.events.scalars(
      step,
      time,
      Object.fromEntries(measured.map(([name, value]) => [`${kind}/${name}`, value as number])),
    );
  }

  async close(): Promise<void> {
    try {
      await this.lines.close();
    } finally {
      await this.events.close();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Reads a `metrics.jsonl`. An incomplete last line, of a process that is still writing or was killed, is left out.
 * @throws Error naming file and line if another line is not a metric
 */
export async function readMetrics(path: string): Promise<Metric[]> {
  return parseLines(path, await readFile(path, "utf8")).map(({ metric }) => metric);
}

async function linesUntil(path: string, step: number): Promise<string[]> {
  const text = (await unlessMissing(readFile(path, "utf8"))) ?? "";
  return parseLines(path, text)
    .filter(({ metric }) => metric.step <= step)
    .map(({ line }) => line);
}

function parseLines(path: string, text: string): { line: string; metric: Metric }[] {
  // Not with `readline`, which also ends lines at U+2028, a character that is valid in JSON strings.
  const lines = text.split("\n");
  return lines.flatMap((line, i) => {
    if (line.trim() === "") return [];
    const { data, problem } = parseLine(line);
    if (data) return [{ line, metric: data }];
    if (i === lines.length - 1) return [];
    throw new Error(`${path}:${i + 1}: not a metric: ${problem}; found ${quote(line)}. Fix or remove the line`);
  });
}

function parseLine(line: string): { data?: Metric; problem?: string } {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch {
    return { problem: "invalid JSON" };
  }
  const { data, error } = metricSchema.safeParse(upgradeMetric(json));
  const [issue] = error?.issues ?? [];
  return { data, problem: issue && [...issue.path, issue.message].join(": ") };
}

/** Renames fields of a line of version 0.1, whose samples have a `picture` instead of an `image`. */
export function upgradeMetric(metric: unknown): unknown {
  if (!isRecord(metric) || !Array.isArray(metric.samples)) return metric;
  const samples = metric.samples.map((sample: unknown) => {
    if (!isRecord(sample) || sample.picture === undefined) return sample;
    const { picture, ...rest } = sample;
    return { image: picture, ...rest };
  });
  return { ...metric, samples };
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}
