/** The public interface of the package. */
export type { AnswerOptions, Conversation, Picture } from "./chat/conversation.ts";
export { type LoadOptions, MiniGPT4 } from "./chat/minigpt4.ts";
