/** A picture as a print, with its number on the edge as on film; a click enlarges it. */
import { useEffect, useState } from "preact/hooks";
import { useWords } from "../shell/language.ts";
import type { PictureRef } from "./chat.ts";
import { useChatApp } from "./chat-app.ts";
import { chatWords } from "./words.ts";

interface Properties {
  readonly picture: PictureRef;
  /** Which picture of the chat it is, counted from 1. */
  readonly number: number;
  readonly onEnlarge: () => void;
}

export function Print({ picture, number, onEnlarge }: Properties) {
  const t = useWords(chatWords);
  const url = usePictureUrl(picture.id);
  const name = picture.name || t.picture(number);
  if (url === null) return <p class="print-lost">{t.pictureLost}</p>;
  return (
    <figure class="print">
      <button type="button" onClick={onEnlarge} aria-label={t.enlarge(name)}>
        <img src={url} alt={name} width={picture.width} height={picture.height} />
      </button>
      <figcaption>
        <span class="frame-number">{number}</span>
        <span class="frame-name">{picture.name}</span>
      </figcaption>
    </figure>
  );
}

/** Where a picture can be shown: undefined until that is known, null if the picture is lost. */
export function usePictureUrl(id: string): string | undefined | null {
  const app = useChatApp();
  const [url, setUrl] = useState<string | undefined | null>(undefined);
  useEffect(() => {
    let here = true;
    app.pictureUrl(id).then(
      (found) => here && setUrl(found),
      () => here && setUrl(null),
    );
    return () => {
      here = false;
    };
  }, [app, id]);
  return url;
}
