/** Live curves of training runs: loss, learning rate, and samples of the model. */
import { useId, useMemo, useState } from "preact/hooks";
import type { RunSummary } from "../../src/server/runs/runs.ts";
import { useStrings } from "../shell/preferences.ts";
import { PageHeader } from "../shell/shell.tsx";
import { Chart, type Curve } from "./chart.tsx";
import { useMetrics, useRuns } from "./runs.ts";
import {
  fileName,
  learningRateTable,
  lossTable,
  type Samples,
  type Summary,
  samplesNewestFirst,
  summarize,
} from "./series.ts";
import { trainingStrings } from "./strings.ts";

/** The same as in `minigpt4 plot`. */
const defaultSmoothing = 0.9;

export function TrainingPage() {
  const t = useStrings(trainingStrings);
  const runs = useRuns();
  const [selected, select] = useState<string>();
  const run = runs.kind === "ready" ? (runs.value.find(({ name }) => name === selected) ?? runs.value[0]) : undefined;
  return (
    <>
      <PageHeader title={t.title}>
        {runs.kind === "ready" && run && <RunSelect runs={runs.value} run={run} onChange={select} />}
      </PageHeader>
      {run && <RunCurves key={run.name} run={run} />}
      {runs.kind === "ready" && !run && <p class="empty-page">{t.none}</p>}
      {runs.kind === "failed" && (
        <p class="empty-page" role="status">
          {t.failed} {runs.message}
        </p>
      )}
    </>
  );
}

function RunSelect({
  runs,
  run,
  onChange,
}: {
  runs: readonly RunSummary[];
  run: RunSummary;
  onChange: (name: string) => void;
}) {
  const t = useStrings(trainingStrings);
  return (
    <div class="run-choice">
      <span class={run.writing ? "live on" : "live"}>{run.writing ? t.live : t.ended}</span>
      <select
        class="small"
        aria-label={t.run}
        value={run.name}
        onChange={({ currentTarget }) => onChange(currentTarget.value)}
      >
        {runs.map(({ name, lastStep }) => (
          <option key={name} value={name}>
            {lastStep === undefined ? name : `${name} (${lastStep})`}
          </option>
        ))}
      </select>
    </div>
  );
}

function RunCurves({ run }: { run: RunSummary }) {
  const t = useStrings(trainingStrings);
  const [stage, setStage] = useState(run.stages.at(-1) ?? "");
  const [smoothing, setSmoothing] = useState(defaultSmoothing);
  const metrics = useMetrics(run.name, stage);
  const loss = useMemo(() => lossTable(metrics, smoothing), [metrics, smoothing]);
  const learningRate = useMemo(() => learningRateTable(metrics), [metrics]);
  const summary = useMemo(() => summarize(metrics, smoothing), [metrics, smoothing]);
  const lossCurves = useMemo<readonly Curve[]>(
    () => [
      { label: t.eachStep, colour: "--line-strong", width: 1 },
      { label: t.smoothed, colour: "--curve", width: 2.5 },
      { label: t.validation, colour: "--curve-2", width: 2, points: true },
    ],
    [t],
  );
  const rateCurves = useMemo<readonly Curve[]>(() => [{ label: t.learningRate, colour: "--curve", width: 2 }], [t]);
  return (
    <div class="training">
      {run.stages.length > 1 && (
        <div class="switch stages" role="radiogroup" aria-label={t.stage}>
          {run.stages.map((name) => (
            <label key={name}>
              <input
                type="radio"
                name="stage"
                class="visually-hidden"
                checked={name === stage}
                onChange={() => setStage(name)}
              />
              {name === "" ? t.mainStage : name}
            </label>
          ))}
        </div>
      )}
      <SummaryList summary={summary} />
      <section>
        <h2>{t.loss}</h2>
        <Chart name={t.lossOf(run.name)} step={t.step} curves={lossCurves} data={loss} format={threeDigits} />
        <Smoothing value={smoothing} onChange={setSmoothing} />
      </section>
      <section>
        <h2>{t.learningRate}</h2>
        <Chart name={t.rateOf(run.name)} step={t.step} curves={rateCurves} data={learningRate} format={scientific} />
      </section>
      <SampleList all={samplesNewestFirst(metrics)} />
    </div>
  );
}

function Smoothing({ value, onChange }: { value: number; onChange: (value: number) => void }) {
  const t = useStrings(trainingStrings);
  const id = useId();
  return (
    <p class="smoothing">
      <label for={id}>{t.smoothing}</label>
      <input
        id={id}
        type="range"
        min={0}
        max={0.99}
        step={0.01}
        value={value}
        onInput={({ currentTarget }) => onChange(currentTarget.valueAsNumber)}
      />
      <output for={id}>{value.toFixed(2)}</output>
    </p>
  );
}

function SummaryList({ summary }: { summary: Summary }) {
  const t = useStrings(trainingStrings);
  const { step, loss, best, learningRate, tokensPerSecond } = summary;
  const facts: readonly (readonly [string, string | undefined])[] = [
    [t.step, step?.toLocaleString()],
    [t.loss, loss?.toFixed(3)],
    [t.bestValidation, best && t.at(best.value.toFixed(3), best.step)],
    [t.learningRate, learningRate?.toExponential(2)],
    [t.tokensPerSecond, tokensPerSecond?.toFixed(0)],
  ];
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value ?? "–"}</dd>
        </div>
      ))}
    </dl>
  );
}

/** The samples of one step. @param all latest first */
function SampleList({ all }: { all: readonly Samples[] }) {
  const t = useStrings(trainingStrings);
  const [selected, select] = useState<number>();
  const shown = all.find(({ step }) => step === selected) ?? all[0];
  if (!shown) return null;
  return (
    <section>
      <h2>
        {t.samples}
        <select
          class="small"
          aria-label={t.samplesAt}
          value={shown.step}
          onChange={({ currentTarget }) => select(Number(currentTarget.value))}
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

function threeDigits(value: number): string {
  return value.toFixed(3);
}

function scientific(value: number): string {
  return value.toExponential(1);
}
