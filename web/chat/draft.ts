/** The question that is being written. */
import { words } from "../shell/language.ts";
import { Store } from "../shell/store.ts";
import { toast } from "../shell/toasts.tsx";
import { ImageProblem, type ReadyImage, readImage } from "./images.ts";
import { chatWords } from "./words.ts";

interface DraftState {
  readonly text: string;
  readonly images: readonly ReadyImage[];
  /** How many images are being read. */
  readonly reading: number;
}

const mostImages = 8;

const empty: DraftState = { text: "", images: [], reading: 0 };

export class Draft {
  readonly state = new Store<DraftState>(empty);

  write(text: string): void {
    this.state.update((now) => ({ ...now, text }));
  }

  clear(): void {
    this.state.set(empty);
  }

  remove(id: string): void {
    this.state.update((now) => ({ ...now, images: now.images.filter((image) => image.id !== id) }));
  }

  /** Adds images; what cannot be taken is told in a toast. */
  async add(files: readonly { readonly blob: Blob; readonly name: string }[]): Promise<void> {
    const t = words(chatWords);
    const { images, reading } = this.state.value;
    const room = mostImages - images.length - reading;
    if (files.length > room) toast(t.tooMany(mostImages));
    for (const { blob, name } of files.slice(0, Math.max(0, room))) {
      this.state.update((now) => ({ ...now, reading: now.reading + 1 }));
      let image: ReadyImage | undefined;
      try {
        image = await readImage(blob, name);
      } catch (problem) {
        if (!(problem instanceof ImageProblem)) throw problem;
        toast(t[problem.kind](name));
      }
      this.state.update((now) => ({
        ...now,
        reading: Math.max(0, now.reading - 1),
        images: image ? [...now.images, image] : now.images,
      }));
    }
  }
}
