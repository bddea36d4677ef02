/** Entry point of the page: picks the backend, and renders the page of the current route. */
import { render } from "preact";
import { type Backend, bundledModel } from "./backend/backend.ts";
import { ServerBackend } from "./backend/server-backend.ts";
import { ChatApp, ChatAppProvider } from "./chat/chat-app.ts";
import { ChatPage } from "./chat/chat-page.tsx";
import { ChatSidebar } from "./chat/chat-sidebar.tsx";
import { ReviewPage } from "./review/review-page.tsx";
import { ReviewSidebar } from "./review/review-sidebar.tsx";
import { applyLanguage, applyTheme } from "./shell/preferences.ts";
import { followLocation, loadSections, navigate, route, sections } from "./shell/router.ts";
import { Shell } from "./shell/shell.tsx";
import { useStore } from "./shell/store.ts";
import { TrainingPage } from "./training/training-page.tsx";
import "./style/base.css";
import "./style/controls.css";
import "./style/shell.css";
import "./style/chat.css";
import "./style/messages.css";
import "./style/composer.css";
import "./style/training.css";
import "./style/review.css";

applyTheme();
applyLanguage();
followLocation();
await loadSections();
const hasModel = sections.value.includes("chat");
if (!hasModel && route.value.page !== "review") navigate({ page: "review" }, { replace: true });
const chat = hasModel ? await ChatApp.open(await createBackend()) : undefined;
const root = document.getElementById("app");
if (root) render(<App chat={chat} />, root);

/** The server that serves the page, or the model exported with the page. */
async function createBackend(): Promise<Backend> {
  const model = bundledModel();
  if (!model) return new ServerBackend();
  const { WorkerBackend } = await import("./backend/worker-backend.ts");
  return new WorkerBackend(new URL(model, document.baseURI).href);
}

/** @param chat undefined if the server has no model */
function App({ chat }: { chat: ChatApp | undefined }) {
  const current = useStore(route);
  const hasReview = useStore(sections).includes("review");
  if (hasReview && (current.page === "review" || !chat)) {
    return (
      <Shell side={<ReviewSidebar />}>
        <ReviewPage />
      </Shell>
    );
  }
  if (!chat) return null;
  return (
    <ChatAppProvider value={chat}>
      <Shell side={<ChatSidebar />}>
        {current.page === "chat" ? <ChatPage chatId={current.id} /> : <TrainingPage />}
      </Shell>
    </ChatAppProvider>
  );
}
