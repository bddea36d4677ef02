/** The pictures of a chat as large as the window. */
import { useEffect, useState } from "preact/hooks";
import { Dialog } from "../shell/dialog.tsx";
import { IconButton } from "../shell/icon-button.tsx";
import { useWords } from "../shell/language.ts";
import type { PictureRef } from "./chat.ts";
import { usePictureUrl } from "./picture.tsx";
import { chatWords } from "./words.ts";

interface Properties {
  readonly pictures: readonly PictureRef[];
  /** Id of the picture that is shown first. */
  readonly first: string;
  readonly onClose: () => void;
}

export function Viewer({ pictures, first, onClose }: Properties) {
  const t = useWords(chatWords);
  const [at, setAt] = useState(() =>
    Math.max(
      0,
      pictures.findIndex(({ id }) => id === first),
    ),
  );
  const picture = pictures[at];
  const turn = (by: number) => setAt((now) => Math.min(pictures.length - 1, Math.max(0, now + by)));
  useEffect(() => {
    const onKeyDown = ({ key }: KeyboardEvent) => {
      if (key === "ArrowLeft") turn(-1);
      if (key === "ArrowRight") turn(1);
    };
    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, [pictures.length]);
  if (!picture) return null;
  return (
    <Dialog shape="bare" title={picture.name || t.picture(at + 1)} onClose={onClose}>
      <LargePicture key={picture.id} picture={picture} />
      {pictures.length > 1 && (
        <div class="viewer-turn">
          <IconButton icon="back" name={t.previous} disabled={at === 0} onClick={() => turn(-1)} />
          <span class="frame-number">
            {at + 1} / {pictures.length}
          </span>
          <IconButton icon="forth" name={t.next} disabled={at === pictures.length - 1} onClick={() => turn(1)} />
        </div>
      )}
    </Dialog>
  );
}

function LargePicture({ picture }: { picture: PictureRef }) {
  const url = usePictureUrl(picture.id);
  return <img class="large" src={url ?? undefined} alt={picture.name} width={picture.width} height={picture.height} />;
}
