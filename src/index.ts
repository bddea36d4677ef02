/**
 * MiniGPT-4 in a Node process: {@link MiniGPT4.load} a model, describe images, and talk about them.
 *
 * @module minigpt4
 */
export {
  type Answer,
  type AnswerOptions,
  type ChatOptions,
  Conversation,
  type ConversationJson,
  type QuestionOptions,
  type Usage,
} from "./chat/conversation.ts";
export { type LoadOptions, MiniGPT4 } from "./chat/minigpt4.ts";
export { type ListedModel, listModels } from "./chat/models.ts";
export type { InvalidSample } from "./data/dataset.ts";
export type {
  EmbeddingInput,
  Engine,
  GenerationEvent,
  GenerationOptions,
  GenerationRequest,
  ImageInput,
  ModelInfo,
} from "./engine/engine.ts";
export type { EngineOptions } from "./engine/load-engine.ts";
export type { SchedulerOptions } from "./engine/scheduler.ts";
export { EngineLostError, type ErrorCode, MiniGPT4Error, RequestError, type RequestErrorCode } from "./errors.ts";
export type { FinishReason } from "./generation/generate.ts";
export type { SamplingOptions } from "./generation/sampling.ts";
export type { PullOptions, PullProgress } from "./hub/pull.ts";
export type { ImageLimits } from "./images/decode.ts";
export type { IndexOptions } from "./retrieval/image-index.ts";
export { type FindOptions, type FoundImage, ImageSearch, type SearchOptions } from "./retrieval/image-search.ts";
export { type Device, devices } from "./runtime/environment.ts";
export {
  type BlockQuantization,
  type Quantization,
  type QuantizationName,
  quantizations,
} from "./tensor/quant/quantization.ts";
export { type Prompt, type PromptTemplate, promptTemplates, type Segment, type Turn } from "./tokenizers/prompts.ts";
