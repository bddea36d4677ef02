/**
 * PyTorch's `.pth` and `.bin` files: zip archives (since 1.6), and the legacy format of five pickles (magic number, version,
 * system, the object, the keys of its storages), followed by each storage after its number of elements.
 */
import { type Entry, fromRandomAccessReaderPromise, RandomAccessReader } from "yauzl";
import { quote } from "../../files/errors.ts";
import type { RandomAccessFile } from "../../files/file.ts";
import { bytesPerElement } from "../../tensor/array.ts";
import { widen } from "../../tensor/float16.ts";
import { type Checkpoint, type Contents, openFile, type StoredTensor } from "../checkpoint.ts";
import { parseGrowing } from "../header.ts";
import { unpickle } from "./pickle.ts";
import {
  countSpan,
  findStateDict,
  gather,
  isContiguous,
  type Storage,
  type StridedTensor,
  torchEnvironment,
} from "./tensors.ts";

/** Limit for the object without its tensors; a large training checkpoint takes a few MB. */
const maxPickleBytes = 2 ** 27;
const legacyMagic = 0x1950a86a20f9469cfc6cn;
const legacyVersion = 1001;

/**
 * Opens a `.pth` or `.bin` file. Its tensors are those of `{"model": {...}}`, `{"state_dict": {...}}` or the top level; names
 * in nested dictionaries are joined by dots. Code that the file refers to is never executed.
 *
 * @throws Error naming the file if it is damaged, or contains something else in place of a tensor
 */
export function openTorch(path: string): Promise<Checkpoint> {
  return openFile(path, parse);
}

async function parse(file: RandomAccessFile): Promise<Contents> {
  const [first, second] = await file.read(0, 2);
  const isZip = first === 0x50 && second === 0x4b;
  const { object, locate } = isZip ? await parseZip(file) : await parseLegacy(file);
  const { tensors, metadata, refused } = findStateDict(object);
  const stored: StoredTensor[] = [];
  for (const [name, tensor] of tensors) stored.push(storedTensor(file, name, tensor, locate(tensor.storage)));
  return { format: "torch", metadata, tensors: stored, refused };
}

/** Location of a storage in the file. */
interface StorageLocation {
  readonly bytes: number;
  offset(): Promise<number>;
}

interface Parsed {
  readonly object: unknown;
  /** @throws Error if the file lacks the storage */
  locate(storage: Storage): StorageLocation;
}

async function parseZip(file: RandomAccessFile): Promise<Parsed> {
  const entries = await zipEntries(file);
  const pickles = [...entries.values()].filter(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
  const [pickle] = pickles;
  if (!pickle || pickles.length > 1) throw new Error("is a zip archive, but not one of PyTorch's: no single data.pkl");
  const folder = pickle.name.slice(0, -"data.pkl".length);
  const byteOrder = entries.get(`${folder}byteorder`);
  if (byteOrder?.size === 3) throw new Error("is big endian; only little-endian files can be read");
  if (pickle.size > maxPickleBytes)
    throw new Error(`its data.pkl has ${pickle.size} bytes; the limit is ${maxPickleBytes}`);
  const environment = torchEnvironment(new Map());
  const start = await pickle.dataOffset();
  const object = await parseGrowing(file, pickle.size, (window) => unpickle(window, environment), start);
  return {
    object,
    locate({ key }) {
      const entry = entries.get(`${folder}data/${key}`);
      if (!entry) throw new Error(`the archive has no entry "${folder}data/${key}"`);
      return { bytes: entry.size, offset: () => entry.dataOffset() };
    },
  };
}

async function parseLegacy(file: RandomAccessFile): Promise<Parsed> {
  const storages = new Map<string, Storage>();
  const environment = torchEnvironment(storages);
  const { object, keys, end } = await parseGrowing(file, maxPickleBytes, (window) => {
    if (unpickle(window, environment) !== legacyMagic) throw new Error("is a pickle, but not a file of torch.save");
    const version = unpickle(window, environment);
    if (version !== legacyVersion) throw new Error("is a torch file of an unknown version");
    const system = unpickle(window, environment);
    if (system instanceof Map && system.get("little_endian") === false) {
      throw new Error("is big endian; only little-endian files can be read");
    }
    const object = unpickle(window, environment);
    return { object, keys: unpickle(window, environment), end: window.position };
  });
  if (!Array.isArray(keys)) throw new Error("has no list of storages");
  const locations = new Map<string, StorageLocation>();
  let at = end;
  for (const key of keys) {
    const storage = storages.get(key);
    if (!storage) throw new Error("lists a storage that nothing uses, whose size is unknown");
    const count = new DataView((await file.read(at, 8)).buffer).getBigInt64(0, true);
    if (count !== BigInt(storage.elements)) {
      throw new Error(`storage ${quote(storage.key)} should have ${storage.elements} elements, but claims ${count}`);
    }
    const offset = at + 8;
    const bytes = storage.elements * bytesPerElement(storage.dtype);
    locations.set(storage.key, { bytes, offset: async () => offset });
    at = offset + bytes;
  }
  if (at > file.size)
    throw new Error(`its storages end at byte ${at}, but the file has ${file.size}; is it truncated?`);
  return {
    object,
    locate({ key }) {
      const location = locations.get(key);
      if (!location) throw new Error(`the file has no storage ${quote(key)}`);
      return location;
    },
  };
}

function storedTensor(
  file: RandomAccessFile,
  name: string,
  tensor: StridedTensor,
  location: StorageLocation,
): StoredTensor {
  const { storage, layout } = tensor;
  const { dtype } = storage;
  const size = bytesPerElement(dtype);
  if (location.bytes < storage.elements * size) {
    throw new Error(
      `tensor ${quote(name)}: its storage should have ${storage.elements * size} bytes, but ${location.bytes} are stored`,
    );
  }
  const byteLength = layout.shape.reduce((product, dim) => product * dim, size);
  return {
    info: { name, storedType: dtype, shape: layout.shape, byteLength },
    async readBytes() {
      const span = await file.read((await location.offset()) + layout.offset * size, countSpan(layout) * size);
      return isContiguous(layout) ? span : gather(span, layout, size);
    },
    toFloat32: (bytes) => widen(dtype, bytes),
  };
}

/** The directory of an archive takes much more memory than space in the file. */
const maxEntries = 200_000;

interface ZipEntry {
  readonly name: string;
  readonly size: number;
  /** Offset of its bytes in the file. @throws Error if the entry is compressed or encrypted */
  dataOffset(): Promise<number>;
}

/** Checks offsets: yauzl's own reader passes those of the archive to the operating system, and crashes on impossible ones. */
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

/** Reads the entries of an archive by name. @throws Error if its directory is damaged */
async function zipEntries(file: RandomAccessFile): Promise<Map<string, ZipEntry>> {
  const zip = await fromRandomAccessReaderPromise(new CheckedReader(file), file.size, {
    autoClose: false,
    lazyEntries: true,
  });
  if (zip.entryCount > maxEntries) throw new Error(`the zip archive claims ${zip.entryCount} entries`);
  const dataOffset = async (entry: Entry): Promise<number> => {
    if (entry.compressionMethod !== 0 || entry.compressedSize !== entry.uncompressedSize) {
      throw new Error(
        `zip entry ${quote(entry.fileName)} is compressed or encrypted; PyTorch stores them uncompressed. ` +
          "If the file was packed again, load it with PyTorch and save it",
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
