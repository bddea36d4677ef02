/** Where the page starts. */
import { render } from "preact";
import { App } from "./app.tsx";
import { chooseBackend } from "./backend/choose.ts";
import { ChatApp } from "./chat/chat-app.ts";
import { followLanguage } from "./shell/language.ts";
import { followAddress, go, route } from "./shell/router.ts";
import { askSections, sections } from "./shell/sections.ts";
import { followTheme } from "./shell/theme.ts";
import "./style/base.css";
import "./style/controls.css";
import "./style/dialogs.css";
import "./style/shell.css";
import "./style/chat.css";
import "./style/messages.css";
import "./style/composer.css";
import "./style/empty.css";
import "./style/training.css";
import "./style/review.css";

followTheme();
followLanguage();
followAddress();
await askSections();
const hasModel = sections.value.includes("chat");
if (!hasModel && route.value.page !== "review") go({ page: "review" }, { replace: true });
const chat = hasModel ? await ChatApp.open(await chooseBackend()) : undefined;
const root = document.getElementById("app");
if (root) render(<App chat={chat} />, root);
