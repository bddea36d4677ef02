/** A button that opens a short list of things to do. */
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { IconButton } from "./icon-button.tsx";
import { Icon, type IconName } from "./icons.tsx";

export interface MenuItem {
  readonly icon: IconName;
  readonly name: string;
  readonly run: () => void;
  readonly danger?: boolean;
}

export function Menu({ icon, name, items }: { icon: IconName; name: string; items: readonly MenuItem[] }) {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const listId = useId();

  useEffect(() => {
    if (!open) return;
    const list = root.current?.querySelector<HTMLElement>("[role=menu]");
    const under = button.current?.getBoundingClientRect();
    if (list && under) place(list, under);
    list?.querySelector("button")?.focus();
    const leave = (event: Event) => {
      if (event.target instanceof Node && root.current?.contains(event.target)) return;
      setOpen(false);
    };
    addEventListener("pointerdown", leave);
    addEventListener("scroll", leave, true);
    return () => {
      removeEventListener("pointerdown", leave);
      removeEventListener("scroll", leave, true);
    };
  }, [open]);

  const close = () => {
    setOpen(false);
    button.current?.focus();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const buttons = [...(root.current?.querySelectorAll<HTMLElement>("[role=menuitem]") ?? [])];
    const at = buttons.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (event.key === "Escape") close();
    else if (event.key === "Tab") setOpen(false);
    else if (to !== undefined) buttons.at(to % buttons.length)?.focus();
    else return;
    if (event.key !== "Tab") event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class="menu" ref={root}>
      <IconButton icon={icon} name={name} expanded={open} buttonRef={button} onClick={() => setOpen(!open)} />
      {open && (
        <div class="menu-list" role="menu" id={listId} aria-label={name} tabIndex={-1} onKeyDown={onKeyDown}>
          {items.map((item) => (
            <button
              key={item.name}
              type="button"
              role="menuitem"
              tabIndex={-1}
              class={item.danger ? "danger" : ""}
              onClick={() => {
                close();
                item.run();
              }}
            >
              <Icon name={item.icon} />
              {item.name}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

/** Puts the list below the button, or above it where there is no room. */
function place(list: HTMLElement, button: DOMRect): void {
  const { width, height } = list.getBoundingClientRect();
  const below = button.bottom + 4;
  list.style.top = `${below + height > innerHeight ? Math.max(4, button.top - height - 4) : below}px`;
  list.style.left = `${Math.max(8, Math.min(button.right - width, innerWidth - width - 8))}px`;
}
