/** Images that are dropped or pasted anywhere on the page. */
import { useEffect, useRef, useState } from "preact/hooks";
import { filesOf } from "./images.ts";

/** Calls `take` with dropped and pasted files; whether something is being dragged over the page. */
export function useDrops(take: (files: readonly File[]) => void): boolean {
  const [over, setOver] = useState(false);
  const taker = useRef(take);
  taker.current = take;
  useEffect(() => {
    // Entering a child comes before leaving its parent, so they are counted.
    let depth = 0;
    const bringsFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const listeners = {
      dragenter(event: DragEvent) {
        if (!bringsFiles(event)) return;
        event.preventDefault();
        depth++;
        setOver(true);
      },
      dragover(event: DragEvent) {
        if (bringsFiles(event)) event.preventDefault();
      },
      dragleave(event: DragEvent) {
        if (!bringsFiles(event)) return;
        depth = Math.max(0, depth - 1);
        if (depth === 0) setOver(false);
      },
      drop(event: DragEvent) {
        if (!bringsFiles(event)) return;
        event.preventDefault();
        depth = 0;
        setOver(false);
        taker.current(filesOf(event.dataTransfer));
      },
      paste(event: ClipboardEvent) {
        const files = filesOf(event.clipboardData);
        if (files.length === 0 || bringsText(event.clipboardData, files)) return;
        event.preventDefault();
        taker.current(files);
      },
    };
    const entries = Object.entries(listeners) as [string, (event: Event) => void][];
    for (const [name, listener] of entries) addEventListener(name, listener);
    return () => {
      for (const [name, listener] of entries) removeEventListener(name, listener);
    };
  }, []);
  return over;
}

/** Word processors put an image of the text beside it; file managers the names of the files. */
function bringsText(data: DataTransfer | null, files: readonly File[]): boolean {
  const text = data?.getData("text/plain") ?? "";
  return text !== "" && !files.some(({ name }) => text.includes(name));
}
