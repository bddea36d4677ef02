/** Which page is shown for which route. */
import { ChatPage } from "./chat/chat-page.tsx";
import { ChatSide } from "./chat/chat-side.tsx";
import { route } from "./shell/router.ts";
import { Shell } from "./shell/shell.tsx";
import { useStore } from "./shell/store.ts";
import { TrainingPage } from "./training/training-page.tsx";

export function App() {
  const here = useStore(route);
  return (
    <Shell side={<ChatSide />}>{here.page === "training" ? <TrainingPage /> : <ChatPage chatId={here.id} />}</Shell>
  );
}
