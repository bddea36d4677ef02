/** The question being written, with its images. */
import { toast } from "../shell/notifications.tsx";
import { getStrings } from "../shell/preferences.ts";
import { Store } from "../shell/store.ts";
import { ImageError, type PreparedImage, prepareImage } from "./images.ts";
import { chatStrings } from "./strings.ts";

interface DraftState {
  readonly text: string;
  readonly images: readonly PreparedImage[];
  /** The number of images being prepared. */
  readonly pending: number;
}

const maxImages = 8;

const empty: DraftState = { text: "", images: [], pending: 0 };

export class Draft {
  readonly state = new Store<DraftState>(empty);

  setText(text: string): void {
    this.state.update((now) => ({ ...now, text }));
  }

  clear(): void {
    this.state.set(empty);
  }

  remove(id: string): void {
    this.state.update((now) => ({ ...now, images: now.images.filter((image) => image.id !== id) }));
  }

  /** Prepares and adds images; a toast reports those that could not be added. */
  async add(files: readonly { readonly blob: Blob; readonly name: string }[]): Promise<void> {
    const t = getStrings(chatStrings);
    const { images, pending } = this.state.value;
    const room = maxImages - images.length - pending;
    if (files.length > room) toast(t.tooMany(maxImages));
    for (const { blob, name } of files.slice(0, Math.max(0, room))) {
      this.state.update((now) => ({ ...now, pending: now.pending + 1 }));
      let image: PreparedImage | undefined;
      try {
        image = await prepareImage(blob, name);
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        toast(t[error.kind](name));
      }
      this.state.update((now) => ({
        ...now,
        pending: Math.max(0, now.pending - 1),
        images: image ? [...now.images, image] : now.images,
      }));
    }
  }
}
