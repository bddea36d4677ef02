/** Strings of the shell: navigation, theme, language, API key. */
import type { Translations } from "./preferences.ts";

const en = {
  close: "Close",
  sections: "Sections",
  chat: "Chat",
  training: "Training",
  review: "Review",
  openMenu: "Menu",
  skip: "Skip to content",
  theme: "Theme",
  themes: { system: "System", light: "Light", dark: "Dark" },
  language: "Language",
  sidebar: "Sidebar",
  keyTitle: "API key",
  keyNote: "This server requires an API key. The key stays in this tab and is forgotten when you close it.",
  keyWrong: "Invalid API key.",
  keySave: "Continue",
};

const zh: typeof en = {
  close: "关闭",
  sections: "栏目",
  chat: "对话",
  training: "训练",
  review: "审核",
  openMenu: "菜单",
  skip: "跳到正文",
  theme: "主题",
  themes: { system: "跟随系统", light: "浅色", dark: "深色" },
  language: "语言",
  sidebar: "侧边栏",
  keyTitle: "API 密钥",
  keyNote: "此服务器需要 API 密钥。密钥只保存在当前标签页，关闭后即清除。",
  keyWrong: "API 密钥无效。",
  keySave: "继续",
};

export const shellStrings: Translations<typeof en> = { en, zh };
