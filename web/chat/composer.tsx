/** Where a question is written and images are added. */
import { useEffect, useRef, useState } from "preact/hooks";
import { IconButton } from "../shell/icon-button.tsx";
import { Icon } from "../shell/icons.tsx";
import { useWords } from "../shell/language.ts";
import { useStore } from "../shell/store.ts";
import type { Chat, ImageRef } from "./chat.ts";
import { useChatApp } from "./chat-app.ts";
import { useImageUrl } from "./image.tsx";
import { Viewer } from "./viewer.tsx";
import { chatWords } from "./words.ts";

interface Properties {
  readonly chat: Chat | undefined;
  readonly busy: boolean;
  /** Edits the last question. */
  readonly onEditLast: () => void;
}

export function Composer({ chat, busy, onEditLast }: Properties) {
  const t = useWords(chatWords);
  const app = useChatApp();
  const { text, images, reading } = useStore(app.draft.state);
  const field = useRef<HTMLTextAreaElement>(null);
  const [enlarged, setEnlarged] = useState<string>();
  useEffect(() => {
    if (field.current) fitHeight(field.current);
  }, [text]);
  useEffect(() => {
    // Not on touch screens, where the focus brings up the keyboard.
    if (matchMedia("(pointer: fine)").matches) field.current?.focus();
  }, [chat?.id, images.length]);

  const wordless = text.trim() === "";
  const nothing = wordless && images.length === 0;
  const describes = wordless && images.length > 0;
  const send = () => {
    if (!busy && !nothing && reading === 0) app.send();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    // While an input method composes a character, Enter chooses it.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && text === "" && chat && !busy) {
      event.preventDefault();
      onEditLast();
    }
  };
  const placeholder = images.length > 0 ? t.placeholderDescribe : chat ? t.placeholder : t.placeholderFirst;
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      {(images.length > 0 || reading > 0) && (
        <ul class="thumbs">
          {images.map((image) => (
            <Thumb key={image.id} image={image} onEnlarge={() => setEnlarged(image.id)} />
          ))}
          {Array.from({ length: reading }, (_, i) => (
            <li class="thumb reading" key={`reading-${i}`} />
          ))}
        </ul>
      )}
      <textarea
        ref={field}
        rows={1}
        aria-label={t.question}
        placeholder={placeholder}
        value={text}
        onInput={(event) => app.draft.write(event.currentTarget.value)}
        onKeyDown={onKeyDown}
      />
      <div class="composer-tools">
        <ImageInput />
        <span class="gap" />
        {busy ? (
          <button type="button" class="button accent" onClick={() => chat && app.answering.stop(chat.id)}>
            <Icon name="stop" />
            {t.stop}
          </button>
        ) : (
          <button type="submit" class="button accent" disabled={nothing || reading > 0}>
            <Icon name="send" />
            {describes ? t.describe : t.send}
          </button>
        )}
      </div>
      {enlarged !== undefined && <Viewer images={images} first={enlarged} onClose={() => setEnlarged(undefined)} />}
    </form>
  );
}

function Thumb({ image, onEnlarge }: { image: ImageRef; onEnlarge: () => void }) {
  const t = useWords(chatWords);
  const app = useChatApp();
  const url = useImageUrl(image.id) ?? undefined;
  return (
    <li class="thumb">
      <button type="button" class="thumb-image" aria-label={t.enlarge(image.name)} onClick={onEnlarge}>
        <img src={url} alt={image.name} width={image.width} height={image.height} />
      </button>
      <IconButton icon="close" name={t.removeImage(image.name)} onClick={() => app.draft.remove(image.id)} />
    </li>
  );
}

/** Buttons that let choose images, and on touch screens take one. */
export function ImageInput({ words = false }: { words?: boolean }) {
  const t = useWords(chatWords);
  const app = useChatApp();
  const files = useRef<HTMLInputElement>(null);
  const camera = useRef<HTMLInputElement>(null);
  const take = (input: HTMLInputElement) => {
    app.draft.add([...(input.files ?? [])].map((blob) => ({ blob, name: blob.name })));
    // The same file can be chosen again.
    input.value = "";
  };
  return (
    <>
      <input ref={files} type="file" accept="image/*" multiple hidden onChange={(event) => take(event.currentTarget)} />
      <input
        ref={camera}
        type="file"
        accept="image/*"
        capture="environment"
        hidden
        onChange={(event) => take(event.currentTarget)}
      />
      {words ? (
        <>
          <button type="button" class="button accent" onClick={() => files.current?.click()}>
            <Icon name="image" />
            {t.choose}
          </button>
          <button type="button" class="button touch-only" onClick={() => camera.current?.click()}>
            <Icon name="camera" />
            {t.takePhoto}
          </button>
        </>
      ) : (
        <>
          <IconButton icon="image" name={t.addImages} onClick={() => files.current?.click()} />
          <IconButton class="touch-only" icon="camera" name={t.takePhoto} onClick={() => camera.current?.click()} />
        </>
      )}
    </>
  );
}

/** Makes a field as high as its text; its style sheet says how high at most. */
export function fitHeight(field: HTMLTextAreaElement): void {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}
