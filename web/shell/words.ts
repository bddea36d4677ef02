/** The words of the shell: navigation, theme, language. */
import type { Dictionary } from "./language.ts";

const en = {
  close: "Close",
  sections: "Sections",
  chat: "Chat",
  training: "Training",
  openMenu: "Menu",
  skip: "Skip to the content",
  theme: "Appearance",
  themes: { system: "As the system", light: "Light", dark: "Dark" },
  language: "Language",
  sidebar: "Chats and sections",
};

const zh: typeof en = {
  close: "关闭",
  sections: "栏目",
  chat: "对话",
  training: "训练",
  openMenu: "菜单",
  skip: "跳到正文",
  theme: "外观",
  themes: { system: "跟随系统", light: "浅色", dark: "深色" },
  language: "语言",
  sidebar: "对话与栏目",
};

export const shellWords: Dictionary<typeof en> = { en, zh };
