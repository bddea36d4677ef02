/** An answer: what came so far, how it ended, how long it took, and what can be done with it. */
import { memo } from "preact/compat";
import { useEffect, useState } from "preact/hooks";
import { copyText } from "../shell/files.ts";
import { IconButton } from "../shell/icon-button.tsx";
import { Icon } from "../shell/icons.tsx";
import { useWords } from "../shell/language.ts";
import { toast } from "../shell/toasts.tsx";
import type { Progress } from "./answering.ts";
import type { AssistantMessage, Timing } from "./chat.ts";
import { MarkupView } from "./markup-view.tsx";
import { chatWords } from "./words.ts";

interface Properties {
  readonly message: AssistantMessage;
  /** Only the last answer can be asked for again, or gone on with. */
  readonly last: boolean;
  readonly progress: Progress | undefined;
  readonly onAgain: () => void;
  readonly onGoOn: () => void;
  readonly onEnterKey: () => void;
}

export const Answer = memo(({ message, last, progress, onAgain, onGoOn, onEnterKey }: Properties) => {
  const t = useWords(chatWords);
  const { text, end, timing } = message;
  const writing = progress?.kind === "writing";
  const copy = async () => toast((await copyText(text)) ? t.copied : t.copyFailed);
  return (
    <section class="answer" aria-label={t.model} aria-busy={progress !== undefined}>
      <div class={writing ? "answer-text writing" : "answer-text"}>
        {text === "" && end && end !== "problem" && <p class="note">{end === "stopped" ? t.stopped : t.emptyAnswer}</p>}
        <MarkupView text={text} />
      </div>
      {progress?.kind === "reading" && <p class="reading-note">{t.reading}</p>}
      {progress?.kind === "waiting" && <Waiting {...progress} />}
      <Ending message={message} last={last} onAgain={onAgain} onGoOn={onGoOn} onEnterKey={onEnterKey} />
      {end && end !== "problem" && (
        <div class="answer-tools">
          {text !== "" && <IconButton icon="copy" name={t.copy} onClick={copy} />}
          {last && <IconButton icon="again" name={t.regenerate} onClick={onAgain} />}
          {timing && <TimingLine {...timing} />}
        </div>
      )}
    </section>
  );
});

/** What is said of an answer that did not end by itself. */
function Ending({ message, last, onAgain, onGoOn, onEnterKey }: Omit<Properties, "progress">) {
  const t = useWords(chatWords);
  const { text, end, problem } = message;
  if (end === "length" || (end === "stopped" && text !== "")) {
    return (
      <p class="note row">
        {end === "length" ? t.cut : t.stopped}
        {last && (
          <button type="button" class="link" onClick={onGoOn}>
            {t.continue}
          </button>
        )}
      </p>
    );
  }
  if (end !== "problem" || !problem) return null;
  return (
    <div class="problem" role="alert">
      <Icon name="warning" />
      <div>
        <p>{problem.kind === "away" ? t.notSent : t.problems[problem.kind]}</p>
        {problem.kind !== "away" && problem.kind !== "key" && <p class="note">{problem.message}</p>}
        {last && (
          <div class="row">
            {problem.kind === "key" && (
              <button type="button" class="button" onClick={onEnterKey}>
                {t.enterKey}
              </button>
            )}
            <button type="button" class="button" onClick={onAgain}>
              {t.tryAgain}
            </button>
            {text !== "" && (
              <button type="button" class="button" onClick={onGoOn}>
                {t.continue}
              </button>
            )}
          </div>
        )}
      </div>
    </div>
  );
}

/** Counts down to when the server is asked again. */
function Waiting({ why, until }: Extract<Progress, { kind: "waiting" }>) {
  const t = useWords(chatWords);
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const clock = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(clock);
  }, []);
  const seconds = Math.max(0, Math.ceil((until - now) / 1000));
  return <p class="reading-note">{why === "busy" ? t.waitingBusy(seconds) : t.waitingLoading(seconds)}</p>;
}

function TimingLine({ first, rest, tokens }: Timing) {
  const t = useWords(chatWords);
  // Of a few tokens the rate says nothing.
  const rate = tokens !== undefined && tokens >= 5 && rest > 0 ? (tokens - 1) / rest : undefined;
  const seconds = first.toFixed(first < 10 ? 1 : 0);
  return (
    <span class="timing">
      <span title={t.firstText(seconds)}>
        <span class="unseen">{t.firstText(seconds)}</span>
        <span aria-hidden="true">{seconds} s</span>
      </span>
      {rate !== undefined && ` · ${t.speed(rate.toFixed(rate < 10 ? 1 : 0))}`}
    </span>
  );
}
