/** The public interface of the package. */
export type { AnswerOptions, Conversation } from "./chat/conversation.ts";
export { EngineLostError, type Picture, QuestionError } from "./chat/engine/engine.ts";
export { type LoadOptions, MiniGPT4 } from "./chat/minigpt4.ts";
