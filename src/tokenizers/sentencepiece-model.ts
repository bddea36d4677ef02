/**
 * The file of a SentencePiece model: a protocol buffer (`ModelProto` of sentencepiece_model.proto). Only what a LLaMA
 * tokenizer needs is read; settings that would change its results and are not supported are refused.
 */
import { BinaryReader } from "@bufbuild/protobuf/wire";

/** Kinds of pieces, by their numbers in the file (GGUF has taken them over). */
export const PIECE_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** One entry of the vocabulary; its id is its position. */
interface ScoredPiece {
  readonly text: string;
  readonly score: number;
  readonly type: number;
}

export interface SentencePieceModel {
  readonly pieces: readonly ScoredPiece[];
  readonly bosId: number | undefined;
  readonly eosId: number;
  readonly padId: number;
  /** Whether a space is put before a text. */
  readonly addDummyPrefix: boolean;
}

/** `TrainerSpec.model_type` of byte-pair encoding. */
const BPE = 2;

/** @throws Error if the bytes are no such model, or one that works otherwise than LLaMA's */
export function parseSentencePieceModel(bytes: Uint8Array): SentencePieceModel {
  const pieces: ScoredPiece[] = [];
  let ids = parseTrainer(new Uint8Array(0));
  let normalizer = parseNormalizer(new Uint8Array(0));
  readFields(bytes, {
    1: (reader) => pieces.push(parsePiece(reader.bytes())),
    2: (reader) => {
      ids = parseTrainer(reader.bytes());
    },
    3: (reader) => {
      normalizer = parseNormalizer(reader.bytes());
    },
  });
  if (pieces.length === 0) throw new Error("no SentencePiece model: it holds no pieces");
  if (ids.modelType !== BPE) {
    throw new Error(`a SentencePiece model of type ${ids.modelType}; only byte-pair encoding (${BPE}) is supported`);
  }
  if (normalizer.charsMap.length > 0 || normalizer.removeExtraWhitespaces) {
    throw new Error("the SentencePiece model normalises its text; only models that leave it as it is are supported");
  }
  return {
    pieces,
    bosId: ids.bosId < 0 ? undefined : ids.bosId,
    eosId: ids.eosId,
    padId: ids.padId < 0 ? ids.unkId : ids.padId,
    addDummyPrefix: normalizer.addDummyPrefix,
  };
}

function parsePiece(bytes: Uint8Array): ScoredPiece {
  const piece = { text: "", score: 0, type: PIECE_TYPE.normal as number };
  readFields(bytes, {
    1: (reader) => {
      piece.text = reader.string();
    },
    2: (reader) => {
      piece.score = reader.float();
    },
    3: (reader) => {
      piece.type = reader.int32();
    },
  });
  return piece;
}

function parseTrainer(bytes: Uint8Array) {
  const trainer = { modelType: 1, unkId: 0, bosId: 1, eosId: 2, padId: -1 };
  readFields(bytes, {
    3: (reader) => {
      trainer.modelType = reader.int32();
    },
    40: (reader) => {
      trainer.unkId = reader.int32();
    },
    41: (reader) => {
      trainer.bosId = reader.int32();
    },
    42: (reader) => {
      trainer.eosId = reader.int32();
    },
    43: (reader) => {
      trainer.padId = reader.int32();
    },
  });
  return trainer;
}

function parseNormalizer(bytes: Uint8Array) {
  const normalizer = { charsMap: new Uint8Array(0), addDummyPrefix: true, removeExtraWhitespaces: true };
  readFields(bytes, {
    2: (reader) => {
      normalizer.charsMap = new Uint8Array(reader.bytes());
    },
    3: (reader) => {
      normalizer.addDummyPrefix = reader.bool();
    },
    4: (reader) => {
      normalizer.removeExtraWhitespaces = reader.bool();
    },
  });
  return normalizer;
}

/** Goes through a message and has each field read by its number; other fields are skipped. */
function readFields(bytes: Uint8Array, fields: Readonly<Record<number, (reader: BinaryReader) => void>>): void {
  const reader = new BinaryReader(bytes);
  try {
    while (reader.pos < reader.len) {
      const [number, wireType] = reader.tag();
      const read = fields[number];
      if (read === undefined) reader.skip(wireType, number);
      else read(reader);
    }
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`no SentencePiece model, or a damaged one (${reason} near byte ${reader.pos})`, { cause });
  }
}
