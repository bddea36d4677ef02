/** Entries of a zip archive that lie in it uncompressed, as PyTorch writes them. */
import { type Entry, fromRandomAccessReaderPromise, RandomAccessReader } from "yauzl";
import type { RandomAccessFile } from "./file.ts";
import { quote } from "./quote.ts";

/** An archive's directory takes much more memory than it does in the file. */
const mostEntries = 200_000;

export interface ZipEntry {
  readonly name: string;
  readonly size: number;
  /** Where the entry's bytes begin in the file. @throws Error if the entry is compressed or encrypted */
  dataOffset(): Promise<number>;
}

/** yauzl's own reader passes any offset that the archive claims to the operating system, and crashes on impossible ones. */
class CheckedReader extends RandomAccessReader {
  private readonly file: RandomAccessFile;

  constructor(file: RandomAccessFile) {
    super();
    this.file = file;
  }

  override read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null) => void,
  ): void {
    this.file.read(position, length).then((bytes) => {
      buffer.set(bytes, offset);
      callback(null);
    }, callback);
  }
}

/** The archive's entries by name. @throws Error if the directory is damaged */
export async function zipEntries(file: RandomAccessFile): Promise<Map<string, ZipEntry>> {
  const zip = await fromRandomAccessReaderPromise(new CheckedReader(file), file.size, {
    autoClose: false,
    lazyEntries: true,
  });
  if (zip.entryCount > mostEntries) throw new Error(`the zip archive claims ${zip.entryCount} entries`);
  const dataOffset = async (entry: Entry): Promise<number> => {
    if (entry.compressionMethod !== 0 || entry.compressedSize !== entry.uncompressedSize) {
      throw new Error(
        `zip entry ${quote(entry.fileName)} is compressed or encrypted; PyTorch stores entries as they are. ` +
          "Was the file packed again? Load it with torch and save it anew",
      );
    }
    return (await zip.readLocalFileHeaderPromise(entry, { minimal: true })).fileDataStart;
  };
  const entries = new Map<string, ZipEntry>();
  for await (const entry of zip.eachEntry()) {
    const { fileName: name, uncompressedSize: size } = entry;
    if (entries.has(name)) throw new Error(`the zip archive has two entries named ${quote(name)}`);
    entries.set(name, { name, size, dataOffset: () => dataOffset(entry) });
  }
  return entries;
}
