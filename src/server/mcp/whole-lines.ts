/** A byte stream in whole lines: what reads messages line by line need not join and search their beginnings again and again. */
import { Transform, type TransformCallback } from "node:stream";

const newline = 0x0a;

/** Holds bytes back until their line has ended. @throws (as the stream's error) Error if a line is longer than `maxBytes` */
export class WholeLines extends Transform {
  private readonly maxBytes: number;
  private begun: Buffer[] = [];
  private length = 0;

  constructor(maxBytes: number) {
    super();
    this.maxBytes = maxBytes;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    const end = chunk.lastIndexOf(newline) + 1;
    if (end > 0) {
      this.push(Buffer.concat([...this.begun, chunk.subarray(0, end)]));
      this.begun = [];
      this.length = 0;
    }
    this.begun.push(chunk.subarray(end));
    this.length += chunk.length - end;
    done(this.length > this.maxBytes ? new Error(`a message is longer than ${this.maxBytes} bytes`) : null);
  }
}
