/**
 * SentencePiece model files (`tokenizer.model`), which are protocol buffers. Only the fields of a LLaMA tokenizer are read;
 * unsupported settings that would change its result are refused.
 */
import { create, fromBinary } from "@bufbuild/protobuf";
import { type ModelProto, ModelProtoSchema, NormalizerSpecSchema, TrainerSpecSchema } from "./sentencepiece_pb.ts";

/** Piece types by their numbers in the file; GGUF uses the same. */
export const PIECE_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** One entry of the vocabulary; its id is its position. */
interface ScoredPiece {
  readonly text: string;
  readonly score: number;
  readonly type: number;
}

export interface SentencePieceModel {
  readonly pieces: readonly ScoredPiece[];
  readonly bosId?: number;
  readonly eosId: number;
  readonly padId: number;
  /** Whether a space is put before the text. */
  readonly addDummyPrefix: boolean;
}

/** `TrainerSpec.model_type` of byte-pair encoding. */
const BPE = 2;

/** Parses a model file. @throws Error if the bytes are not a SentencePiece model, or its settings are not supported */
export function parseSentencePieceModel(bytes: Uint8Array): SentencePieceModel {
  const model = parseModel(bytes);
  // Missing messages have their defaults.
  const trainer = model.trainerSpec ?? create(TrainerSpecSchema);
  const normalizer = model.normalizerSpec ?? create(NormalizerSpecSchema);
  if (model.pieces.length === 0) throw new Error("not a SentencePiece model: it has no pieces");
  if (trainer.modelType !== BPE) {
    throw new Error(
      `the SentencePiece model has type ${trainer.modelType}; only byte-pair encoding (${BPE}) is supported`,
    );
  }
  if (normalizer.precompiledCharsmap.length > 0 || normalizer.removeExtraWhitespaces) {
    throw new Error("the SentencePiece model normalizes its text; only models that leave it unchanged are supported");
  }
  return {
    pieces: model.pieces.map(({ piece, score, type }) => ({ text: piece, score, type })),
    bosId: trainer.bosId < 0 ? undefined : trainer.bosId,
    eosId: trainer.eosId,
    padId: trainer.padId < 0 ? trainer.unkId : trainer.padId,
    addDummyPrefix: normalizer.addDummyPrefix,
  };
}

function parseModel(bytes: Uint8Array): ModelProto {
  try {
    return fromBinary(ModelProtoSchema, bytes, { readUnknownFields: false });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`not a SentencePiece model, or damaged: ${reason}`, { cause });
  }
}
