/**
 * MiniGPT-4 in a Node process: {@link MiniGPT4.load} a model, have pictures described, talk about them.
 *
 * @module minigpt4
 */
export type { AnswerOptions, Conversation } from "./chat/conversation.ts";
export {
  type AnswerEvent,
  type Decoding,
  type EmbeddingInput,
  type EndReason,
  type Engine,
  EngineLostError,
  type ModelCard,
  type Picture,
  type Question,
  QuestionError,
} from "./chat/engine/engine.ts";
export type { EngineOptions } from "./chat/engine/load-engine.ts";
export type { SchedulerOptions } from "./chat/engine/scheduler.ts";
export { type LoadOptions, MiniGPT4 } from "./chat/minigpt4.ts";
export type { SamplingOptions } from "./chat/sampling.ts";
export type { PullOptions, PullProgress } from "./checkpoints/pull.ts";
export type { Problem } from "./data/dataset.ts";
export type { PictureLimits } from "./images/picture.ts";
export type { IndexOptions } from "./retrieval/picture-index.ts";
export { type FindOptions, type FoundPicture, PictureSearch, type SearchOptions } from "./retrieval/picture-search.ts";
export type { Turn } from "./text/prompts.ts";
