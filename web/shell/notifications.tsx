/** Toasts, which may offer one action such as Undo, and announcements for screen readers. */
import { IconButton } from "./icons.tsx";
import { useStrings } from "./preferences.ts";
import { sidebarOpen } from "./router.ts";
import { Store, useStore } from "./store.ts";
import { shellStrings } from "./strings.ts";

interface ToastAction {
  readonly name: string;
  readonly run: () => void;
}

interface Toast {
  readonly id: number;
  readonly text: string;
  readonly action?: ToastAction;
}

const durationMs = { plain: 4000, withAction: 9000 };
const maxToasts = 3;

const toasts = new Store<readonly Toast[]>([]);
let lastId = 0;

/** Shows a toast. @param onExpire called when it disappears without its action having been taken */
export function toast(text: string, action?: ToastAction, onExpire?: () => void): void {
  const id = ++lastId;
  let acted = false;
  const dismiss = () => {
    if (!toasts.value.some((toast) => toast.id === id)) return;
    toasts.update((all) => all.filter((toast) => toast.id !== id));
    if (!acted) onExpire?.();
  };
  const run = () => {
    acted = true;
    dismiss();
    action?.run();
  };
  toasts.update((all) => [...all.slice(1 - maxToasts), { id, text, action: action && { name: action.name, run } }]);
  // The open drawer would cover the toast.
  sidebarOpen.set(false);
  setTimeout(dismiss, action ? durationMs.withAction : durationMs.plain);
}

export function Toasts() {
  const t = useStrings(shellStrings);
  return (
    <div class="toasts" role="status">
      {useStore(toasts).map(({ id, text, action }) => (
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
            onClick={() => toasts.update((all) => all.filter((toast) => toast.id !== id))}
          />
        </div>
      ))}
    </div>
  );
}

const announcement = new Store("");

/** Has screen readers read `text` when they are idle. */
export function announce(text: string): void {
  // An unchanged text would not be read again.
  announcement.set(announcement.value === text ? `${text}\u00a0` : text);
}

export function Announcer() {
  return (
    <div class="visually-hidden" aria-live="polite">
      {useStore(announcement)}
    </div>
  );
}
