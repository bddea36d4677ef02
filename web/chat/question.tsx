/** A question with its images; it can be asked differently. */
import { memo } from "preact/compat";
import { useEffect, useRef, useState } from "preact/hooks";
import { IconButton } from "../shell/icon-button.tsx";
import { useWords } from "../shell/language.ts";
import type { ImageRef, UserMessage } from "./chat.ts";
import { fitHeight } from "./composer.tsx";
import { Print } from "./image.tsx";
import { chatWords } from "./words.ts";

interface Properties {
  readonly message: UserMessage;
  /** The number of its first image in the chat, counted from 1. */
  readonly firstNumber: number;
  readonly editing: boolean;
  readonly onEdit: (id: string | undefined) => void;
  readonly onSave: (id: string, text: string) => void;
  readonly onEnlarge: (image: ImageRef) => void;
}

export const GenerationRequest = memo(({ message, firstNumber, editing, onEdit, onSave, onEnlarge }: Properties) => {
  const t = useWords(chatWords);
  return (
    <section class="question" aria-label={t.you}>
      {message.images.length > 0 && (
        <div class={message.images.length === 1 ? "prints single" : "prints"}>
          {message.images.map((image, i) => (
            <Print key={image.id} image={image} number={firstNumber + i} onEnlarge={() => onEnlarge(image)} />
          ))}
        </div>
      )}
      {editing ? (
        <QuestionEditor
          text={message.text}
          needsWords={message.images.length === 0}
          onCancel={() => onEdit(undefined)}
          onSave={(text) => onSave(message.id, text)}
        />
      ) : (
        <div class="question-line">
          <p class={message.text === "" ? "question-text wordless" : "question-text"}>
            {message.text === "" ? t.describe : message.text}
          </p>
          <IconButton class="quiet" icon="edit" name={t.edit} onClick={() => onEdit(message.id)} />
        </div>
      )}
    </section>
  );
});

function QuestionEditor({
  text: before,
  needsWords,
  onSave,
  onCancel,
}: {
  text: string;
  /** Without an image, a question has to say something. */
  needsWords: boolean;
  onSave: (text: string) => void;
  onCancel: () => void;
}) {
  const t = useWords(chatWords);
  const [text, setText] = useState(before);
  const field = useRef<HTMLTextAreaElement>(null);
  const unasked = needsWords && text.trim() === "";
  const save = () => {
    if (!unasked) onSave(text);
  };
  useEffect(() => {
    field.current?.focus();
    field.current?.select();
  }, []);
  useEffect(() => {
    if (field.current) fitHeight(field.current);
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
        <button type="submit" class="button accent" disabled={unasked}>
          {t.save}
        </button>
        <button type="button" class="button" onClick={onCancel}>
          {t.cancel}
        </button>
      </div>
    </form>
  );
}
