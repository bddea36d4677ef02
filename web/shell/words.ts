/** The words of the shell: navigation, theme, language. */
import type { Dictionary } from "./language.ts";

const en = {
  close: "Close",
  sections: "Sections",
  chat: "Chat",
  training: "Training",
  review: "Review",
  openMenu: "Menu",
  skip: "Skip to the content",
  theme: "Appearance",
  themes: { system: "As the system", light: "Light", dark: "Dark" },
  language: "Language",
  sidebar: "Chats and sections",
  keyTitle: "API key",
  keyNote:
    "The server takes only those who have its key. It stays in this tab, and is forgotten when the tab is closed.",
  keyWrong: "The server does not take this key.",
  keySave: "Use this key",
};

const zh: typeof en = {
  close: "关闭",
  sections: "栏目",
  chat: "对话",
  training: "训练",
  review: "审核",
  openMenu: "菜单",
  skip: "跳到正文",
  theme: "外观",
  themes: { system: "跟随系统", light: "浅色", dark: "深色" },
  language: "语言",
  sidebar: "对话与栏目",
  keyTitle: "API 密钥",
  keyNote: "服务器只接受持有密钥的人。密钥只留在此标签页中，关闭后即忘记。",
  keyWrong: "服务器不接受这个密钥。",
  keySave: "使用此密钥",
};

export const shellWords: Dictionary<typeof en> = { en, zh };
