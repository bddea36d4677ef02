/** Line icons, buttons with an icon, and the app's logo. Icons accompany a text or label, so screen readers skip them. */
import type { ComponentChildren, Ref } from "preact";

const paths = {
  plus: "M12 5v14M5 12h14",
  image: "M4 5h16v14H4zM4 16l4.5-4.5 4 4 2.5-2.5 5 5M15.5 9.5h.01",
  camera: "M4 8h3.5L9 5.5h6L16.5 8H20v11H4zM12 16.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7z",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h11v11H9zM15 9V4H4v11h5",
  check: "M5 12.5l4.5 4.5L19 7.5",
  regenerate: "M19 12a7 7 0 1 1-2.2-5.1M19 4v4h-4",
  edit: "M5 19l.8-3.8L16 5l3 3L8.8 18.2zM14 7l3 3",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 13h8l1-13",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  menu: "M4 7h16M4 12h16M4 17h16",
  sliders:
    "M4 7h9M17 7h3M4 17h3M11 17h9M15 9.2a2.2 2.2 0 1 0 0-4.4 2.2 2.2 0 0 0 0 4.4zM9 19.2a2.2 2.2 0 1 0 0-4.4 2.2 2.2 0 0 0 0 4.4z",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  upload: "M12 16V5M7 9l5-5 5 5M5 20h14",
  help: "M9 9.2a3 3 0 1 1 4.2 2.8c-.8.4-1.2 1-1.2 2M12 17.5h.01M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z",
  chat: "M4 5h16v11h-9l-4.5 3.5V16H4z",
  curve: "M4 4v16h16M7 8c2 7 6 8 12 8.5",
  review: "M4 5h16v10H4zM8.5 10l2.5 2.5 4.5-5M4 19h10",
  undo: "M9 6L4.5 10.5 9 15M4.5 10.5H15a4.5 4.5 0 0 1 0 9h-3",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
  screen: "M4 5h16v11H4zM9 20h6M12 16v4",
  back: "M14 6l-6 6 6 6",
  forward: "M10 6l6 6-6 6",
  warning: "M12 4l9 16H3zM12 10v4M12 17h.01",
  key: "M14.5 13a4.5 4.5 0 1 0-4.2-3L4 16.5V20h3.5v-2.5H10V15l1.5-1.5a4.5 4.5 0 0 0 3-.5zM16 8h.01",
} as const;

export type IconName = keyof typeof paths;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class={name === "stop" ? "icon filled" : "icon"} viewBox="0 0 24 24" aria-hidden="true">
      <path d={paths[name]} />
    </svg>
  );
}

interface IconButtonProps {
  readonly icon: IconName;
  /** Label for screen readers, and tooltip. */
  readonly name: string;
  readonly onClick: () => void;
  readonly disabled?: boolean;
  readonly kind?: "plain" | "accent";
  readonly expanded?: boolean;
  readonly buttonRef?: Ref<HTMLButtonElement>;
  readonly class?: string;
  readonly children?: ComponentChildren;
}

export function IconButton({
  icon,
  name,
  onClick,
  disabled,
  kind = "plain",
  expanded,
  buttonRef,
  ...rest
}: IconButtonProps) {
  return (
    <button
      type="button"
      ref={buttonRef}
      class={`icon-button ${kind} ${rest.class ?? ""}`}
      aria-label={name}
      aria-expanded={expanded}
      title={name}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon name={icon} />
      {rest.children}
    </button>
  );
}

/** The logo: a frame of film. */
export function Logo() {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="6" class="mark-film" />
      <rect x="5" y="9" width="22" height="14" rx="1.5" class="mark-frame" />
      {[6, 14.5, 23].flatMap((x) =>
        [4.5, 25].map((y) => <rect key={`${x},${y}`} x={x} y={y} width="3" height="2.5" rx="0.6" class="mark-hole" />),
      )}
    </svg>
  );
}
