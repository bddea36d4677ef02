/** The question that is being written. */
import { words } from "../shell/language.ts";
import { Store } from "../shell/store.ts";
import { toast } from "../shell/toasts.tsx";
import { PictureProblem, type ReadyPicture, readPicture } from "./pictures.ts";
import { chatWords } from "./words.ts";

interface DraftState {
  readonly text: string;
  readonly pictures: readonly ReadyPicture[];
  /** How many pictures are being read. */
  readonly reading: number;
}

const mostPictures = 8;

const empty: DraftState = { text: "", pictures: [], reading: 0 };

export class Draft {
  readonly state = new Store<DraftState>(empty);

  write(text: string): void {
    this.state.update((now) => ({ ...now, text }));
  }

  clear(): void {
    this.state.set(empty);
  }

  remove(id: string): void {
    this.state.update((now) => ({ ...now, pictures: now.pictures.filter((picture) => picture.id !== id) }));
  }

  /** Adds pictures; what cannot be taken is told in a toast. */
  async add(files: readonly { readonly blob: Blob; readonly name: string }[]): Promise<void> {
    const t = words(chatWords);
    const { pictures, reading } = this.state.value;
    const room = mostPictures - pictures.length - reading;
    if (files.length > room) toast(t.tooMany(mostPictures));
    for (const { blob, name } of files.slice(0, Math.max(0, room))) {
      this.state.update((now) => ({ ...now, reading: now.reading + 1 }));
      let picture: ReadyPicture | undefined;
      try {
        picture = await readPicture(blob, name);
      } catch (problem) {
        if (!(problem instanceof PictureProblem)) throw problem;
        toast(t[problem.kind](name));
      }
      this.state.update((now) => ({
        ...now,
        reading: Math.max(0, now.reading - 1),
        pictures: picture ? [...now.pictures, picture] : now.pictures,
      }));
    }
  }
}
