/** Talking about pictures. */
import { PageHead } from "../shell/page-head.tsx";

export function ChatPage({ chatId }: { chatId: string | undefined }) {
  return <PageHead title={chatId ?? "minigpt4"} />;
}
