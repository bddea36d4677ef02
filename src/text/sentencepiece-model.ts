/**
 * The file of a SentencePiece model: a protocol buffer (`ModelProto` in sentencepiece_model.proto). Only the fields that
 * a tokenizer needs are read.
 */

import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { PIECE_TYPE, type ScoredPiece, type SentencePieceModel } from "./sentencepiece-types.ts";
