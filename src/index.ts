/**
 * MiniGPT-4 in a Node process: {@link MiniGPT4.load} a model, have images described, talk about them.
 *
 * @module minigpt4
 */
export type { AnswerOptions, Conversation } from "./chat/conversation.ts";
export { type LoadOptions, MiniGPT4 } from "./chat/minigpt4.ts";
export type { InvalidSample } from "./data/dataset.ts";
export {
  type EmbeddingInput,
  type Engine,
  EngineLostError,
  type GenerationEvent,
  type GenerationOptions,
  type GenerationRequest,
  type ImageInput,
  type ModelInfo,
  RequestError,
} from "./engine/engine.ts";
export type { EngineOptions } from "./engine/load-engine.ts";
export type { SchedulerOptions } from "./engine/scheduler.ts";
export type { FinishReason } from "./generation/generate.ts";
export type { SamplingOptions } from "./generation/sampling.ts";
export type { PullOptions, PullProgress } from "./hub/pull.ts";
export type { ImageLimits } from "./images/decode.ts";
export type { IndexOptions } from "./retrieval/image-index.ts";
export { type FindOptions, type FoundImage, ImageSearch, type SearchOptions } from "./retrieval/image-search.ts";
export type { Turn } from "./tokenizers/prompts.ts";
