/** Which page is shown for which route. */
import { type ChatApp, ChatAppProvider } from "./chat/chat-app.ts";
import { ChatPage } from "./chat/chat-page.tsx";
import { ChatSide } from "./chat/chat-side.tsx";
import { ReviewPage } from "./review/review-page.tsx";
import { ReviewSide } from "./review/review-side.tsx";
import { route } from "./shell/router.ts";
import { sections } from "./shell/sections.ts";
import { Shell } from "./shell/shell.tsx";
import { useStore } from "./shell/store.ts";
import { TrainingPage } from "./training/training-page.tsx";

/** @param chat undefined where the server has no model */
export function App({ chat }: { chat: ChatApp | undefined }) {
  const here = useStore(route);
  const hasReview = useStore(sections).includes("review");
  if (hasReview && (here.page === "review" || !chat)) {
    return (
      <Shell side={<ReviewSide />}>
        <ReviewPage />
      </Shell>
    );
  }
  if (!chat) return null;
  return (
    <ChatAppProvider value={chat}>
      <Shell side={<ChatSide />}>{here.page === "chat" ? <ChatPage chatId={here.id} /> : <TrainingPage />}</Shell>
    </ChatAppProvider>
  );
}
