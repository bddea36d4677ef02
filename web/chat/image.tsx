/** An image as a print, with its number on the edge as on film; a click enlarges it. */
import { useEffect, useState } from "preact/hooks";
import { useWords } from "../shell/language.ts";
import type { ImageRef } from "./chat.ts";
import { useChatApp } from "./chat-app.ts";
import { chatWords } from "./words.ts";

interface Properties {
  readonly image: ImageRef;
  /** Which image of the chat it is, counted from 1. */
  readonly number: number;
  readonly onEnlarge: () => void;
}

export function Print({ image, number, onEnlarge }: Properties) {
  const t = useWords(chatWords);
  const url = useImageUrl(image.id);
  const name = image.name || t.image(number);
  if (url === null) return <p class="print-lost">{t.imageLost}</p>;
  return (
    <figure class="print">
      <button type="button" onClick={onEnlarge} aria-label={t.enlarge(name)}>
        <img src={url} alt={name} width={image.width} height={image.height} />
      </button>
      <figcaption>
        <span class="frame-number">{number}</span>
        <span class="frame-name">{image.name}</span>
      </figcaption>
    </figure>
  );
}

/** Where an image can be shown: undefined until that is known, null if the image is lost. */
export function useImageUrl(id: string): string | undefined | null {
  const app = useChatApp();
  const [url, setUrl] = useState<string | undefined | null>(undefined);
  useEffect(() => {
    let here = true;
    app.imageUrl(id).then(
      (found) => here && setUrl(found),
      () => here && setUrl(null),
    );
    return () => {
      here = false;
    };
  }, [app, id]);
  return url;
}
