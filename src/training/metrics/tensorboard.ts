/** Writes TensorBoard event files: TFRecord frames around `Event` messages. */
import { type FileHandle, mkdir, open, readdir } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import crc32c from "crc-32/crc32c.js";

import { EventSchema, type SummarySchema } from "./event_pb.ts";

/** `SessionLog.START`, `DATA_CLASS_TENSOR` and `DT_STRING` of TensorFlow. */
const sessionStart = 1;
const tensorData = 2;
const stringType = 7;

type Content = MessageInitShape<typeof EventSchema>["what"];
type SummaryValue = NonNullable<MessageInitShape<typeof SummarySchema>["value"]>[number];

/** An event file that is being written. One call is awaited before the next. */
export class EventFile {
  private readonly file: FileHandle;

  private constructor(file: FileHandle) {
    this.file = file;
  }

  /**
   * Begins a new file in `folder`, beside those of earlier processes. What they wrote of `firstStep` and later is
   * forgotten by TensorBoard, as after a restart.
   */
  static async begin(folder: string, firstStep: number): Promise<EventFile> {
    await mkdir(folder, { recursive: true });
    const events = new EventFile(await open(join(folder, await nextName(folder)), "wx"));
    const now = Date.now() / 1000;
    await events.write(0, now, { case: "fileVersion", value: "brain.Event:2" });
    await events.write(firstStep, now, { case: "sessionLog", value: { status: sessionStart } });
    return events;
  }

  /** Numbers by tag, for example `train/loss`; kept as float32. `time` is in Unix seconds. */
  async scalars(step: number, time: number, values: Readonly<Record<string, number>>): Promise<void> {
    const summary = Object.entries(values).map(
      ([tag, value]): SummaryValue => ({ tag, value: { case: "simpleValue", value: Math.fround(value) } }),
    );
    await this.summary(step, time, summary);
  }

  /** A text that TensorBoard shows as Markdown: a string tensor without dimensions, for the plugin "text". */
  async text(step: number, time: number, tag: string, markdown: string): Promise<void> {
    const stringVal = [new TextEncoder().encode(markdown)];
    await this.summary(step, time, [
      {
        tag,
        value: { case: "tensor", value: { dtype: stringType, tensorShape: {}, stringVal } },
        metadata: { pluginData: { pluginName: "text" }, dataClass: tensorData },
      },
    ]);
  }

  async close(): Promise<void> {
    await this.file.close();
  }

  private summary(step: number, time: number, value: readonly SummaryValue[]): Promise<void> {
    return this.write(step, time, { case: "summary", value: { value: [...value] } });
  }

  private async write(step: number, time: number, what: Content): Promise<void> {
    const event = create(EventSchema, { wallTime: time, step: BigInt(step), what });
    await this.file.appendFile(record(toBinary(EventSchema, event)));
  }
}

/** A Markdown table whose cells TensorBoard shows letter by letter. */
export function markdownTable(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(heading), line(heading.map(() => "---")), ...rows.map((row) => line(row.map(literal)))].join("\n");
}

/** As TensorBoard's Markdown knows no escape for them, `<`, `&` and `|` are written as HTML entities. */
function literal(text: string): string {
  return text
    .replace(/[\\`*_{}[\]()#+\-.!]/g, "\\$&")
    .replace(/[&<>|]/g, (c) => `&#${c.charCodeAt(0)};`)
    .replace(/\s*[\r\n]\s*/g, "<br>");
}

/** Length, its checksum, the data, its checksum: little-endian (tensorflow/core/lib/io/record_writer). */
function record(data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(data.length + 16);
  bytes.writeBigUInt64LE(BigInt(data.length));
  bytes.writeUInt32LE(maskedChecksum(bytes.subarray(0, 8)), 8);
  bytes.set(data, 12);
  bytes.writeUInt32LE(maskedChecksum(data), 12 + data.length);
  return bytes;
}

/** CRC-32C, turned and moved, so that a checksum of data which holds checksums stays a good one. */
function maskedChecksum(data: Uint8Array): number {
  const crc = crc32c.buf(data) >>> 0;
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** TensorBoard reads the files of a folder in the order of their names, so the newest has the largest time. */
async function nextName(folder: string): Promise<string> {
  const times = (await readdir(folder)).map((name) =>
    Number(/^events\.out\.tfevents\.(\d{10})\./.exec(name)?.[1] ?? 0),
  );
  const time = Math.max(Math.floor(Date.now() / 1000), ...times.map((earlier) => earlier + 1));
  return `events.out.tfevents.${time}.${hostname().replace(/[^\w.-]/g, "-")}.${process.pid}`;
}
