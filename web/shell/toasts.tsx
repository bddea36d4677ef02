/** Short messages at the edge of the page, which may offer one action, such as undoing what was done. */
import { IconButton } from "./icon-button.tsx";
import { useWords } from "./language.ts";
import { sideOpen } from "./side.ts";
import { Store, useStore } from "./store.ts";
import { shellWords } from "./words.ts";

interface Toast {
  readonly id: number;
  readonly text: string;
  readonly action?: { readonly name: string; readonly run: () => void };
}

/** How long a toast is shown; one with an action stays longer. */
const shownFor = { plain: 4000, action: 9000 };

const toasts = new Store<readonly Toast[]>([]);
let lastId = 0;

/** Shows a message. `gone` is called when it has left and its action can no longer be taken. */
export function toast(text: string, action?: Toast["action"], gone?: () => void): void {
  const id = ++lastId;
  let acted = false;
  const leave = () => {
    if (!toasts.value.some((shown) => shown.id === id)) return;
    toasts.update((shown) => shown.filter((one) => one.id !== id));
    if (!acted) gone?.();
  };
  const run = () => {
    acted = true;
    leave();
    action?.run();
  };
  toasts.update((shown) => [...shown.slice(-2), { id, text, ...(action && { action: { name: action.name, run } }) }]);
  // Behind the open side it could not be reached.
  sideOpen.set(false);
  setTimeout(leave, action ? shownFor.action : shownFor.plain);
}

export function Toasts() {
  const t = useWords(shellWords);
  const shown = useStore(toasts);
  return (
    <div class="toasts" role="status">
      {shown.map(({ id, text, action }) => (
        <div class="toast" key={id}>
          <span>{text}</span>
          {action && (
            <button type="button" class="link" onClick={action.run}>
              {action.name}
            </button>
          )}
          <IconButton
            icon="close"
            name={t.close}
            onClick={() => toasts.update((all) => all.filter((one) => one.id !== id))}
          />
        </div>
      ))}
    </div>
  );
}
