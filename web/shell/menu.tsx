/** A button that opens a menu. */
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Icon, IconButton, type IconName } from "./icons.tsx";

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
    const anchor = button.current?.getBoundingClientRect();
    if (list && anchor) place(list, anchor);
    list?.querySelector("button")?.focus();
    const closeOutside = (event: Event) => {
      if (event.target instanceof Node && root.current?.contains(event.target)) return;
      setOpen(false);
    };
    addEventListener("pointerdown", closeOutside);
    addEventListener("scroll", closeOutside, true);
    return () => {
      removeEventListener("pointerdown", closeOutside);
      removeEventListener("scroll", closeOutside, true);
    };
  }, [open]);

  const close = () => {
    setOpen(false);
    button.current?.focus();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const buttons = [...(root.current?.querySelectorAll<HTMLElement>("[role=menuitem]") ?? [])];
    const index = buttons.indexOf(document.activeElement as HTMLElement);
    const target = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: -1 }[event.key];
    if (event.key === "Escape") close();
    else if (event.key === "Tab") setOpen(false);
    else if (target !== undefined) buttons.at(target % buttons.length)?.focus();
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

/** Places the list below the button, or above it if there is no room. */
function place(list: HTMLElement, button: DOMRect): void {
  const { width, height } = list.getBoundingClientRect();
  const below = button.bottom + 4;
  list.style.top = `${below + height > innerHeight ? Math.max(4, button.top - height - 4) : below}px`;
  list.style.left = `${Math.max(8, Math.min(button.right - width, innerWidth - width - 8))}px`;
}
