/** A small reader of TensorBoard's event files, written against the format and not against our writer. */
import { readFile } from "node:fs/promises";
import { BinaryReader } from "@bufbuild/protobuf/wire";

interface EventValue {
  tag?: string;
  scalar?: number;
  dtype?: number;
  text?: string;
  plugin?: string;
}

interface ReadEvent {
  step: number;
  time?: number;
  fileVersion?: string;
  sessionStatus?: number;
  values?: EventValue[];
}

/** The events of a file. @throws Error if a frame or a checksum is wrong */
export async function readEvents(path: string): Promise<ReadEvent[]> {
  const bytes = await readFile(path);
  const events: ReadEvent[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    check(bytes.subarray(at, at + 8), bytes.readUInt32LE(at + 8));
    const data = bytes.subarray(at + 12, at + 12 + length);
    check(data, bytes.readUInt32LE(at + 12 + length));
    events.push(readEvent(data));
    at += length + 16;
  }
  return events;
}

function check(data: Uint8Array, stored: number): void {
  const unmasked = (stored - 0xa282ead8) >>> 0;
  if (((unmasked << 15) | (unmasked >>> 17)) >>> 0 !== crc32c(data)) throw new Error("A checksum is wrong");
}

/** Bit by bit, with the Castagnoli polynomial (RFC 3720, appendix B.4). */
function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

/** Calls `read` at each field; what it does not read is skipped. */
function fields(data: Uint8Array, read: (field: number, reader: BinaryReader) => boolean): void {
  const reader = new BinaryReader(data);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (!read(field, reader)) reader.skip(wireType);
  }
}

function readEvent(data: Uint8Array): ReadEvent {
  const event: ReadEvent = { step: 0 };
  fields(data, (field, reader) => {
    if (field === 1) event.time = reader.double();
    else if (field === 2) event.step = Number(reader.int64());
    else if (field === 3) event.fileVersion = reader.string();
    else if (field === 5) event.values = readSummary(reader.bytes());
    else if (field === 7) {
      fields(reader.bytes(), (inner, session) => {
        if (inner === 1) event.sessionStatus = session.int32();
        return inner === 1;
      });
    } else return false;
    return true;
  });
  return event;
}

function readSummary(data: Uint8Array): EventValue[] {
  const values: EventValue[] = [];
  fields(data, (field, reader) => {
    if (field === 1) values.push(readValue(reader.bytes()));
    return field === 1;
  });
  return values;
}

function readValue(data: Uint8Array): EventValue {
  const value: EventValue = {};
  fields(data, (field, reader) => {
    if (field === 1) value.tag = reader.string();
    else if (field === 2) value.scalar = reader.float();
    else if (field === 8) {
      fields(reader.bytes(), (inner, tensor) => {
        if (inner === 1) value.dtype = tensor.int32();
        else if (inner === 8) value.text = tensor.string();
        else return false;
        return true;
      });
    } else if (field === 9) {
      fields(reader.bytes(), (inner, metadata) => {
        if (inner !== 1) return false;
        fields(metadata.bytes(), (name, plugin) => {
          if (name === 1) value.plugin = plugin.string();
          return name === 1;
        });
        return true;
      });
    } else return false;
    return true;
  });
  return value;
}
