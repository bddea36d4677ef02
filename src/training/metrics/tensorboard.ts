/** Writes TensorBoard event files: TFRecord frames around Event messages (tensorflow/core/util/event.proto), field by field. */
import { type FileHandle, mkdir, open, readdir } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import crc32c from "crc-32/crc32c.js";

const varint = 0;
const fixed64 = 1;
const lengthDelimited = 2;
const fixed32 = 5;

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
    await events.write(0, now, (w) => w.tag(3, lengthDelimited).string("brain.Event:2"));
    const sessionStarts = (w: BinaryWriter) => w.tag(1, varint).int32(1);
    await events.write(firstStep, now, (w) => message(w, 7, sessionStarts));
    return events;
  }

  /** Numbers by tag, for example `train/loss`; kept as float32. `time` is in Unix seconds. */
  async scalars(step: number, time: number, values: Readonly<Record<string, number>>): Promise<void> {
    await this.summary(
      step,
      time,
      Object.entries(values).map(([tag, value]) => (w: BinaryWriter) => {
        w.tag(1, lengthDelimited).string(tag);
        w.tag(2, fixed32).float(Math.fround(value));
      }),
    );
  }

  /** A text that TensorBoard shows as Markdown: a string tensor without dimensions, for the plugin "text". */
  async text(step: number, time: number, tag: string, markdown: string): Promise<void> {
    await this.summary(step, time, [
      (w) => {
        w.tag(1, lengthDelimited).string(tag);
        message(w, 8, (tensor) => {
          tensor.tag(1, varint).int32(7);
          message(tensor, 2, () => {});
          tensor.tag(8, lengthDelimited).string(markdown);
        });
        message(w, 9, (metadata) => {
          message(metadata, 1, (plugin) => plugin.tag(1, lengthDelimited).string("text"));
          metadata.tag(4, varint).int32(2);
        });
      },
    ]);
  }

  async close(): Promise<void> {
    await this.file.close();
  }

  private summary(step: number, time: number, values: readonly ((w: BinaryWriter) => void)[]): Promise<void> {
    return this.write(step, time, (w) =>
      message(w, 5, (summary) => {
        for (const value of values) message(summary, 1, value);
      }),
    );
  }

  private async write(step: number, time: number, what: (writer: BinaryWriter) => void): Promise<void> {
    const writer = new BinaryWriter();
    writer.tag(1, fixed64).double(time);
    writer.tag(2, varint).int64(step);
    what(writer);
    await this.file.appendFile(record(writer.finish()));
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

function message(writer: BinaryWriter, field: number, write: (writer: BinaryWriter) => void): void {
  writer.tag(field, lengthDelimited).fork();
  write(writer);
  writer.join();
}
