/** Curves of training runs. */

import { useWords } from "../shell/language.ts";
import { PageHead } from "../shell/page-head.tsx";
import { trainingWords } from "./words.ts";

export function TrainingPage() {
  const t = useWords(trainingWords);
  return (
    <>
      <PageHead title={t.title} />
      <p class="empty-page">{t.none}</p>
    </>
  );
}
