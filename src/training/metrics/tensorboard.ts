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

/** Writes an event file. Await each call before the next. */
export class EventFile {
  private readonly file: FileHandle;

  private constructor(file: FileHandle) {
    this.file = file;
  }

  /**
   * Creates a new file in `folder`, next to those of earlier processes. TensorBoard discards their events from `firstStep`
   * on, as after a restart.
   */
  static async create(folder: string, firstStep: number): Promise<EventFile> {
    await mkdir(folder, { recursive: true });
    const events = new EventFile(await open(join(folder, await nextName(folder)), "wx"));
    const now = Date.now() / 1000;
    await events.write(0, now, { case: "fileVersion", value: "brain.Event:2" });
    await events.write(firstStep, now, { case: "sessionLog", value: { status: sessionStart } });
    return events;
  }

  /** Writes float32 scalars by tag, for example `train/loss`. @param time Unix time in seconds */
  async scalars(step: number, time: number, values: Readonly<Record<string, number>>): Promise<void> {
    const summary = Object.entries(values).map(
      ([tag, value]): SummaryValue => ({ tag, value: { case: "simpleValue", value: Math.fround(value) } }),
    );
    await this.summary(step, time, summary);
  }

  /** Writes a text that TensorBoard shows as Markdown: a string scalar for the plugin "text". */
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

/** A Markdown table whose cells TensorBoard shows literally. */
export function markdownTable(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(heading), line(heading.map(() => "---")), ...rows.map((row) => line(row.map(escapeMarkdown)))].join(
    "\n",
  );
}

/** Escapes Markdown. `<`, `&` and `|` become HTML entities, because TensorBoard has no escape for them. */
function escapeMarkdown(text: string): string {
  return text
    .replace(/[\\`*_{}[\]()#+\-.!]/g, "\\$&")
    .replace(/[&<>|]/g, (c) => `&#${c.charCodeAt(0)};`)
    .replace(/\s*[\r\n]\s*/g, "<br>");
}

/** A TFRecord: length, its checksum, data, its checksum, all little-endian (tensorflow/core/lib/io/record_writer). */
function record(data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(data.length + 16);
  bytes.writeBigUInt64LE(BigInt(data.length));
  bytes.writeUInt32LE(maskedChecksum(bytes.subarray(0, 8)), 8);
  bytes.set(data, 12);
  bytes.writeUInt32LE(maskedChecksum(data), 12 + data.length);
  return bytes;
}

/** CRC-32C, rotated and offset, as TFRecord masks it for data that itself contains checksums. */
function maskedChecksum(data: Uint8Array): number {
  const crc = crc32c.buf(data) >>> 0;
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** A file name after all others: TensorBoard reads the files of a folder in the order of their names. */
async function nextName(folder: string): Promise<string> {
  const times = (await readdir(folder)).map((name) =>
    Number(/^events\.out\.tfevents\.(\d{10})\./.exec(name)?.[1] ?? 0),
  );
  const time = Math.max(Math.floor(Date.now() / 1000), ...times.map((earlier) => earlier + 1));
  return `events.out.tfevents.${time}.${hostname().replace(/[^\w.-]/g, "-")}.${process.pid}`;
}
