/** Tar files for tests: whole ones by tar-stream, single members by hand. */
import { buffer } from "node:stream/consumers";
import { pack } from "tar-stream";

export interface Member {
  readonly name: string;
  readonly body: string | Uint8Array;
}

/** The bytes of a tar with these members, ended as it should be. */
export async function tarOf(members: readonly Member[]): Promise<Buffer> {
  const tar = pack();
  const bytes = buffer(tar);
  for (const { name, body } of members) tar.entry({ name }, Buffer.from(body));
  tar.finalize();
  return bytes;
}

export interface RawMember {
  readonly name: string;
  readonly type?: string;
  readonly body?: string | Uint8Array;
  /** The field of the size as it stands in the header, 12 bytes. */
  readonly size?: string;
  readonly magic?: string;
  readonly prefix?: string;
}

/** One header with its body, padded; without the end of the tar. */
export function rawMember({
  name,
  type = "0",
  body = "",
  size,
  magic = "ustar\x0000",
  prefix = "",
}: RawMember): Buffer {
  const data = Buffer.from(body);
  const header = Buffer.alloc(512);
  const put = (text: string, at: number) => header.write(text, at, "latin1");
  header.write(name, 0, 100);
  put("0000644\0", 100);
  put("0000000\0", 108);
  put("0000000\0", 116);
  put(size ?? `${data.length.toString(8).padStart(11, "0")}\0`, 124);
  put("00000000000\0", 136);
  put("        ", 148);
  put(type, 156);
  put(magic, 257);
  header.write(prefix, 345, 155);
  const sum = header.reduce((total, byte) => total + byte, 0);
  put(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return Buffer.concat([header, data, Buffer.alloc((512 - (data.length % 512)) % 512)]);
}

export const tarEnd = Buffer.alloc(1024);

/** A record of a pax header: its length in digits, itself counted, a space, and the rest. */
export function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const digits = String(Buffer.byteLength(rest) + 3).length;
  return `${Buffer.byteLength(rest) + digits}${rest}`;
}
