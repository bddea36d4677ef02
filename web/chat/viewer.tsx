/** The images of a chat as large as the window. */
import { useEffect, useState } from "preact/hooks";
import { Dialog } from "../shell/dialog.tsx";
import { IconButton } from "../shell/icon-button.tsx";
import { useWords } from "../shell/language.ts";
import type { ImageRef } from "./chat.ts";
import { useImageUrl } from "./image.tsx";
import { chatWords } from "./words.ts";

interface Properties {
  readonly images: readonly ImageRef[];
  /** Id of the image that is shown first. */
  readonly first: string;
  readonly onClose: () => void;
}

export function Viewer({ images, first, onClose }: Properties) {
  const t = useWords(chatWords);
  const [at, setAt] = useState(() =>
    Math.max(
      0,
      images.findIndex(({ id }) => id === first),
    ),
  );
  const image = images[at];
  const turn = (by: number) => setAt((now) => Math.min(images.length - 1, Math.max(0, now + by)));
  useEffect(() => {
    const onKeyDown = ({ key }: KeyboardEvent) => {
      if (key === "ArrowLeft") turn(-1);
      if (key === "ArrowRight") turn(1);
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, [images.length]);
  if (!image) return null;
  return (
    <Dialog shape="bare" title={image.name || t.image(at + 1)} onClose={onClose}>
      <LargeImage key={image.id} image={image} />
      {images.length > 1 && (
        <div class="viewer-turn">
          <IconButton icon="back" name={t.previous} disabled={at === 0} onClick={() => turn(-1)} />
          <span class="frame-number">
            {at + 1} / {images.length}
          </span>
          <IconButton icon="forth" name={t.next} disabled={at === images.length - 1} onClick={() => turn(1)} />
        </div>
      )}
    </Dialog>
  );
}

function LargeImage({ image }: { image: ImageRef }) {
  const url = useImageUrl(image.id);
  return <img class="large" src={url ?? undefined} alt={image.name} width={image.width} height={image.height} />;
}
