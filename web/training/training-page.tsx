/** Curves of training runs, live: loss, learning rate, and what the model says of held-out images. */
import { useId, useMemo, useState } from "preact/hooks";
import type { RunSummary } from "../../src/server/runs/runs.ts";
import { useWords } from "../shell/language.ts";
import { PageHead } from "../shell/page-head.tsx";
import { Chart, type Curve } from "./chart.tsx";
import { SampleList } from "./sample-list.tsx";
import { learningRateTable, lossTable, type Summary, samplesOf, summaryOf } from "./series.ts";
import { useMetrics, useRuns } from "./use-runs.ts";
import { trainingWords } from "./words.ts";

/** Of the moving average, as `minigpt4 plot` smooths. */
const smoothingByDefault = 0.9;

export function TrainingPage() {
  const t = useWords(trainingWords);
  const runs = useRuns();
  const [chosen, choose] = useState<string>();
  const run = runs.kind === "ready" ? (runs.value.find(({ name }) => name === chosen) ?? runs.value[0]) : undefined;
  return (
    <>
      <PageHead title={t.title}>
        {runs.kind === "ready" && run && <RunChoice runs={runs.value} run={run} onChoose={choose} />}
      </PageHead>
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

function RunChoice({
  runs,
  run,
  onChoose,
}: {
  runs: readonly RunSummary[];
  run: RunSummary;
  onChoose: (name: string) => void;
}) {
  const t = useWords(trainingWords);
  return (
    <div class="run-choice">
      <span class={run.writing ? "live on" : "live"}>{run.writing ? t.live : t.ended}</span>
      <select
        class="small"
        aria-label={t.run}
        value={run.name}
        onChange={({ currentTarget }) => onChoose(currentTarget.value)}
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
  const t = useWords(trainingWords);
  const [stage, setStage] = useState(run.stages.at(-1) ?? "");
  const [smoothing, setSmoothing] = useState(smoothingByDefault);
  const metrics = useMetrics(run.name, stage);
  const loss = useMemo(() => lossTable(metrics, smoothing), [metrics, smoothing]);
  const learningRate = useMemo(() => learningRateTable(metrics), [metrics]);
  const summary = useMemo(() => summaryOf(metrics, smoothing), [metrics, smoothing]);
  const lossCurves = useMemo<readonly Curve[]>(
    () => [
      { label: t.eachStep, colour: "--line-strong", width: 1 },
      { label: t.smoothed, colour: "--curve", width: 2.5 },
      { label: t.heldOut, colour: "--curve-2", width: 2, points: true },
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
                class="unseen"
                checked={name === stage}
                onChange={() => setStage(name)}
              />
              {name === "" ? t.mainStage : name}
            </label>
          ))}
        </div>
      )}
      <Facts summary={summary} />
      <section>
        <h2>{t.loss}</h2>
        <Chart name={t.lossOf(run.name)} step={t.step} curves={lossCurves} data={loss} format={threeDigits} />
        <Smoothing value={smoothing} onChange={setSmoothing} />
      </section>
      <section>
        <h2>{t.learningRate}</h2>
        <Chart name={t.rateOf(run.name)} step={t.step} curves={rateCurves} data={learningRate} format={scientific} />
      </section>
      <SampleList all={samplesOf(metrics)} />
    </div>
  );
}

function Smoothing({ value, onChange }: { value: number; onChange: (value: number) => void }) {
  const t = useWords(trainingWords);
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

function Facts({ summary }: { summary: Summary }) {
  const t = useWords(trainingWords);
  const { step, loss, best, learningRate, tokensPerSecond } = summary;
  const facts: readonly (readonly [string, string | undefined])[] = [
    [t.step, step?.toLocaleString()],
    [t.loss, loss?.toFixed(3)],
    [t.bestHeldOut, best && t.at(best.value.toFixed(3), best.step)],
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

function threeDigits(value: number): string {
  return value.toFixed(3);
}

function scientific(value: number): string {
  return value.toExponential(1);
}
