/** Images of messages, and the viewer that enlarges them. */
import { useEffect, useState } from "preact/hooks";
import { Dialog } from "../shell/dialog.tsx";
import { IconButton } from "../shell/icons.tsx";
import { useStrings } from "../shell/preferences.ts";
import type { ImageRef } from "./chat.ts";
import { useChatApp } from "./chat-app.ts";
import { chatStrings } from "./strings.ts";

interface MessageImageProps {
  readonly image: ImageRef;
  /** The number of the image in the chat, from 1. */
  readonly number: number;
  readonly onEnlarge: () => void;
}

export function MessageImage({ image, number, onEnlarge }: MessageImageProps) {
  const t = useStrings(chatStrings);
  const url = useImageUrl(image.id);
  const name = image.name || t.image(number);
  if (url === null) return <p class="image-lost">{t.imageLost}</p>;
  return (
    <figure class="message-image">
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

/** An object URL of an image: undefined while it is loaded, null if the image is lost. */
export function useImageUrl(id: string): string | undefined | null {
  const app = useChatApp();
  const [url, setUrl] = useState<string | undefined | null>(undefined);
  useEffect(() => {
    let mounted = true;
    app.imageUrl(id).then(
      (found) => mounted && setUrl(found),
      () => mounted && setUrl(null),
    );
    return () => {
      mounted = false;
    };
  }, [app, id]);
  return url;
}

interface ViewerProps {
  readonly images: readonly ImageRef[];
  /** The id of the image to start with. */
  readonly first: string;
  readonly onClose: () => void;
}

export function Viewer({ images, first, onClose }: ViewerProps) {
  const t = useStrings(chatStrings);
  const [index, setIndex] = useState(() =>
    Math.max(
      0,
      images.findIndex(({ id }) => id === first),
    ),
  );
  const image = images[index];
  const step = (by: number) => setIndex((now) => Math.min(images.length - 1, Math.max(0, now + by)));
  useEffect(() => {
    const onKeyDown = ({ key }: KeyboardEvent) => {
      if (key === "ArrowLeft") step(-1);
      if (key === "ArrowRight") step(1);
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, [images.length]);
  if (!image) return null;
  return (
    <Dialog shape="bare" title={image.name || t.image(index + 1)} onClose={onClose}>
      <LargeImage key={image.id} image={image} />
      {images.length > 1 && (
        <div class="viewer-nav">
          <IconButton icon="back" name={t.previous} disabled={index === 0} onClick={() => step(-1)} />
          <span class="frame-number">
            {index + 1} / {images.length}
          </span>
          <IconButton icon="forward" name={t.next} disabled={index === images.length - 1} onClick={() => step(1)} />
        </div>
      )}
    </Dialog>
  );
}

function LargeImage({ image }: { image: ImageRef }) {
  const url = useImageUrl(image.id);
  return <img class="large" src={url ?? undefined} alt={image.name} width={image.width} height={image.height} />;
}
