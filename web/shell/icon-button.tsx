/** A button that shows an icon; its name is read aloud and shown as a tip. */
import type { ComponentChildren, Ref } from "preact";
import { Icon, type IconName } from "./icons.tsx";

interface Properties {
  readonly icon: IconName;
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
}: Properties) {
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
