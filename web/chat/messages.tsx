/** The messages of a chat: questions, which can be edited, and answers with their status and actions. */
import { memo } from "preact/compat";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { copyText } from "../shell/files.ts";
import { Icon, IconButton } from "../shell/icons.tsx";
import { toast } from "../shell/notifications.tsx";
import { useStrings } from "../shell/preferences.ts";
import { useStore } from "../shell/store.ts";
import { type AssistantMessage, type Chat, chatImages, type ImageRef, type Timing, type UserMessage } from "./chat.ts";
import { useChatApp } from "./chat-app.ts";
import { autosize } from "./composer.tsx";
import type { Progress } from "./generations.ts";
import { MessageImage, Viewer } from "./image-view.tsx";
import { MarkupView } from "./markup.tsx";
import { chatStrings } from "./strings.ts";

interface MessagesProps {
  readonly chat: Chat;
  /** The id of the question being edited. */
  readonly editing: string | undefined;
  readonly onEdit: (id: string | undefined) => void;
}

export function Messages({ chat, editing, onEdit }: MessagesProps) {
  const t = useStrings(chatStrings);
  const app = useChatApp();
  const progress = useStore(app.generations.progress).get(chat.id);
  const [enlarged, setEnlarged] = useState<ImageRef>();
  const list = useStickToBottom(chat);
  const current = useRef(chat);
  current.current = chat;
  const save = useCallback(
    (id: string, text: string) => {
      onEdit(undefined);
      app.edit(current.current, id, text);
    },
    [app, onEdit],
  );
  const regenerate = useCallback(() => app.regenerate(current.current), [app]);
  const continueAnswer = useCallback(() => app.continueAnswer(current.current), [app]);
  const enterKey = useCallback(() => app.dialog.set("key"), [app]);
  const images = chatImages(chat);
  let number = 1;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: keyboard users need to scroll it
    <div class="messages" ref={list} role="log" aria-live="off" aria-label={t.conversation} tabIndex={0}>
      <div class="column">
        {chat.messages.map((message, i) => {
          const last = i === chat.messages.length - 1;
          if (message.role === "assistant") {
            return (
              <Answer
                key={message.id}
                message={message}
                last={last}
                progress={last ? progress : undefined}
                onRegenerate={regenerate}
                onContinue={continueAnswer}
                onEnterKey={enterKey}
              />
            );
          }
          const firstNumber = number;
          number += message.images.length;
          return (
            <Question
              key={message.id}
              message={message}
              firstNumber={firstNumber}
              editing={message.id === editing}
              onEdit={onEdit}
              onSave={save}
              onEnlarge={setEnlarged}
            />
          );
        })}
      </div>
      {enlarged && <Viewer images={images} first={enlarged.id} onClose={() => setEnlarged(undefined)} />}
    </div>
  );
}

/** Keeps the list scrolled to its end while it grows, unless the user has scrolled up. */
function useStickToBottom(chat: Chat) {
  const list = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  useEffect(() => {
    const element = list.current;
    if (!element) return;
    const onScroll = () => {
      atEnd.current = element.scrollHeight - element.scrollTop - element.clientHeight < 48;
    };
    const follow = () => {
      if (atEnd.current) element.scrollTop = element.scrollHeight;
    };
    element.addEventListener("scroll", onScroll, { passive: true });
    // Images change the height when they load.
    const observer = new ResizeObserver(follow);
    if (element.firstElementChild) observer.observe(element.firstElementChild);
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", onScroll);
    };
  }, []);
  const count = chat.messages.length;
  useEffect(() => {
    atEnd.current = true;
    if (list.current) list.current.scrollTop = list.current.scrollHeight;
  }, [count]);
  return list;
}

interface QuestionProps {
  readonly message: UserMessage;
  /** The number of its first image in the chat, from 1. */
  readonly firstNumber: number;
  readonly editing: boolean;
  readonly onEdit: (id: string | undefined) => void;
  readonly onSave: (id: string, text: string) => void;
  readonly onEnlarge: (image: ImageRef) => void;
}

const Question = memo(({ message, firstNumber, editing, onEdit, onSave, onEnlarge }: QuestionProps) => {
  const t = useStrings(chatStrings);
  return (
    <section class="question" aria-label={t.you}>
      {message.images.length > 0 && (
        <div class={message.images.length === 1 ? "message-images single" : "message-images"}>
          {message.images.map((image, i) => (
            <MessageImage key={image.id} image={image} number={firstNumber + i} onEnlarge={() => onEnlarge(image)} />
          ))}
        </div>
      )}
      {editing ? (
        <QuestionEditor
          text={message.text}
          required={message.images.length === 0}
          onCancel={() => onEdit(undefined)}
          onSave={(text) => onSave(message.id, text)}
        />
      ) : (
        <div class="question-line">
          <p class={message.text === "" ? "question-text default" : "question-text"}>
            {message.text === "" ? t.describe : message.text}
          </p>
          <IconButton class="quiet" icon="edit" name={t.edit} onClick={() => onEdit(message.id)} />
        </div>
      )}
    </section>
  );
});

function QuestionEditor({
  text: initialText,
  required,
  onSave,
  onCancel,
}: {
  text: string;
  /** Whether the text must not be empty. */
  required: boolean;
  onSave: (text: string) => void;
  onCancel: () => void;
}) {
  const t = useStrings(chatStrings);
  const [text, setText] = useState(initialText);
  const field = useRef<HTMLTextAreaElement>(null);
  const invalid = required && text.trim() === "";
  const save = () => {
    if (!invalid) onSave(text);
  };
  useEffect(() => {
    field.current?.focus();
    field.current?.select();
  }, []);
  useEffect(() => {
    if (field.current) autosize(field.current);
  }, [text]);
  return (
    <form
      class="question-editor"
      onSubmit={(event) => {
        event.preventDefault();
        save();
      }}
    >
      <textarea
        ref={field}
        rows={1}
        aria-label={t.edit}
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.isComposing || event.keyCode === 229) return;
          if (event.key === "Escape") {
            event.stopPropagation();
            onCancel();
          } else if (event.key === "Enter" && !event.shiftKey) {
            event.preventDefault();
            save();
          }
        }}
      />
      <p class="note">{t.editNote}</p>
      <div class="row">
        <button type="submit" class="button accent" disabled={invalid}>
          {t.save}
        </button>
        <button type="button" class="button" onClick={onCancel}>
          {t.cancel}
        </button>
      </div>
    </form>
  );
}

interface AnswerProps {
  readonly message: AssistantMessage;
  /** Only the last answer can be regenerated or continued. */
  readonly last: boolean;
  readonly progress: Progress | undefined;
  readonly onRegenerate: () => void;
  readonly onContinue: () => void;
  readonly onEnterKey: () => void;
}

const Answer = memo(({ message, last, progress, onRegenerate, onContinue, onEnterKey }: AnswerProps) => {
  const t = useStrings(chatStrings);
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
      <AnswerStatus
        message={message}
        last={last}
        onRegenerate={onRegenerate}
        onContinue={onContinue}
        onEnterKey={onEnterKey}
      />
      {end && end !== "problem" && (
        <div class="answer-tools">
          {text !== "" && <IconButton icon="copy" name={t.copy} onClick={copy} />}
          {last && <IconButton icon="regenerate" name={t.regenerate} onClick={onRegenerate} />}
          {timing && <TimingLine {...timing} />}
        </div>
      )}
    </section>
  );
});

/** Why an answer is incomplete, and what to do. */
function AnswerStatus({ message, last, onRegenerate, onContinue, onEnterKey }: Omit<AnswerProps, "progress">) {
  const t = useStrings(chatStrings);
  const { text, end, problem } = message;
  if (end === "length" || (end === "stopped" && text !== "")) {
    return (
      <p class="note row">
        {end === "length" ? t.cut : t.stopped}
        {last && (
          <button type="button" class="link" onClick={onContinue}>
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
            <button type="button" class="button" onClick={onRegenerate}>
              {t.tryAgain}
            </button>
            {text !== "" && (
              <button type="button" class="button" onClick={onContinue}>
                {t.continue}
              </button>
            )}
          </div>
        )}
      </div>
    </div>
  );
}

/** Counts down to the next attempt. */
function Waiting({ reason, until }: Extract<Progress, { kind: "waiting" }>) {
  const t = useStrings(chatStrings);
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, []);
  const seconds = Math.max(0, Math.ceil((until - now) / 1000));
  return <p class="reading-note">{reason === "busy" ? t.waitingBusy(seconds) : t.waitingLoading(seconds)}</p>;
}

function TimingLine({ first, rest, tokens }: Timing) {
  const t = useStrings(chatStrings);
  // The rate of a few tokens says nothing.
  const rate = tokens !== undefined && tokens >= 5 && rest > 0 ? (tokens - 1) / rest : undefined;
  const seconds = first.toFixed(first < 10 ? 1 : 0);
  return (
    <span class="timing">
      <span title={t.firstText(seconds)}>
        <span class="visually-hidden">{t.firstText(seconds)}</span>
        <span aria-hidden="true">{seconds} s</span>
      </span>
      {rate !== undefined && ` · ${t.speed(rate.toFixed(rate < 10 ? 1 : 0))}`}
    </span>
  );
}
