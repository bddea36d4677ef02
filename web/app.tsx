/** Which page is shown for which route. */
import { type ChatApp, ChatAppProvider } from "./chat/chat-app.ts";
import { ChatPage } from "./chat/chat-page.tsx";
import { ChatSide } from "./chat/chat-side.tsx";
import { route } from "./shell/router.ts";
import { Shell } from "./shell/shell.tsx";
import { useStore } from "./shell/store.ts";
import { TrainingPage } from "./training/training-page.tsx";

export function App({ chat }: { chat: ChatApp }) {
  const here = useStore(route);
  return (
    <ChatAppProvider value={chat}>
      <Shell side={<ChatSide />}>{here.page === "training" ? <TrainingPage /> : <ChatPage chatId={here.id} />}</Shell>
    </ChatAppProvider>
  );
}
