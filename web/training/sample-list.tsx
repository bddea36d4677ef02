/** What the model in training said of held-out images, at the step that is chosen. */
import { useState } from "preact/hooks";
import { useWords } from "../shell/language.ts";
import { fileName, type Samples } from "./series.ts";
import { trainingWords } from "./words.ts";

/** @param all the latest first */
export function SampleList({ all }: { all: readonly Samples[] }) {
  const t = useWords(trainingWords);
  const [chosen, choose] = useState<number>();
  const shown = all.find(({ step }) => step === chosen) ?? all[0];
  if (!shown) return null;
  return (
    <section>
      <h2>
        {t.samples}
        <select
          class="small"
          aria-label={t.samplesAt}
          value={shown.step}
          onChange={({ currentTarget }) => choose(Number(currentTarget.value))}
        >
          {all.map(({ step }) => (
            <option key={step} value={step}>
              {t.afterStep(step)}
            </option>
          ))}
        </select>
      </h2>
      <dl class="samples">
        {shown.samples.map(({ image, text }) => (
          <div key={image}>
            <dt title={image}>{fileName(image)}</dt>
            <dd>{text}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
