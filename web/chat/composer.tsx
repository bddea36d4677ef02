/** The form for a question and its images. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Icon, IconButton } from "../shell/icons.tsx";
import { useStrings } from "../shell/preferences.ts";
import { useStore } from "../shell/store.ts";
import type { Chat, ImageRef } from "./chat.ts";
import { useChatApp } from "./chat-app.ts";
import { useImageUrl, Viewer } from "./image-view.tsx";
import { chatStrings } from "./strings.ts";

interface ComposerProps {
  readonly chat: Chat | undefined;
  readonly busy: boolean;
  /** Edits the last question. */
  readonly onEditLast: () => void;
}

export function Composer({ chat, busy, onEditLast }: ComposerProps) {
  const t = useStrings(chatStrings);
  const app = useChatApp();
  const { text, images, pending } = useStore(app.draft.state);
  const field = useRef<HTMLTextAreaElement>(null);
  const [enlarged, setEnlarged] = useState<string>();
  useEffect(() => {
    if (field.current) autosize(field.current);
  }, [text]);
  useEffect(() => {
    // Not on touch screens, where focus opens the keyboard.
    if (matchMedia("(pointer: fine)").matches) field.current?.focus();
  }, [chat?.id, images.length]);

  const blank = text.trim() === "";
  const empty = blank && images.length === 0;
  const describes = blank && images.length > 0;
  const send = () => {
    if (!busy && !empty && pending === 0) app.send();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    // In an input method, Enter accepts the composed character (some browsers only report key code 229).
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
      {(images.length > 0 || pending > 0) && (
        <ul class="thumbs">
          {images.map((image) => (
            <Thumb key={image.id} image={image} onEnlarge={() => setEnlarged(image.id)} />
          ))}
          {Array.from({ length: pending }, (_, i) => (
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
        onInput={(event) => app.draft.setText(event.currentTarget.value)}
        onKeyDown={onKeyDown}
      />
      <div class="composer-tools">
        <ImageInput />
        <span class="gap" />
        {busy ? (
          <button type="button" class="button accent" onClick={() => chat && app.generations.stop(chat.id)}>
            <Icon name="stop" />
            {t.stop}
          </button>
        ) : (
          <button type="submit" class="button accent" disabled={empty || pending > 0}>
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
  const t = useStrings(chatStrings);
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

/** Buttons to choose images, and on touch screens to take a photo. @param labels whether to show them with text */
export function ImageInput({ labels = false }: { labels?: boolean }) {
  const t = useStrings(chatStrings);
  const app = useChatApp();
  const files = useRef<HTMLInputElement>(null);
  const camera = useRef<HTMLInputElement>(null);
  const add = (input: HTMLInputElement) => {
    app.draft.add([...(input.files ?? [])].map((blob) => ({ blob, name: blob.name })));
    // Allow choosing the same file again.
    input.value = "";
  };
  return (
    <>
      <input ref={files} type="file" accept="image/*" multiple hidden onChange={(event) => add(event.currentTarget)} />
      <input
        ref={camera}
        type="file"
        accept="image/*"
        capture="environment"
        hidden
        onChange={(event) => add(event.currentTarget)}
      />
      {labels ? (
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

/** Fits the height of a field to its text; the style sheet limits it. */
export function autosize(field: HTMLTextAreaElement): void {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}
