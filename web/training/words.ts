/** The words of the training page. */
import type { Dictionary } from "../shell/language.ts";

const en = {
  title: "Training",
  none: "No training runs are shown here yet; a run started with minigpt4 train writes its curves into its folder.",
};

const zh: typeof en = {
  title: "训练",
  none: "这里还没有训练记录；用 minigpt4 train 开始的训练会把曲线写进它的文件夹。",
};

export const trainingWords: Dictionary<typeof en> = { en, zh };
