/** The dialogs of the chat: settings, help, API key. */
import { useId, useState } from "preact/hooks";
import { Dialog, KeyForm } from "../shell/dialog.tsx";
import { useStrings } from "../shell/preferences.ts";
import { useStore } from "../shell/store.ts";
import { shellStrings } from "../shell/strings.ts";
import { useChatApp } from "./chat-app.ts";
import { examples } from "./images.ts";
import { bounds, defaults, type NumberSetting, readSeed, type Settings, settings } from "./settings.ts";
import { chatStrings } from "./strings.ts";

export function ChatDialogs() {
  const t = useStrings(chatStrings);
  const shell = useStrings(shellStrings);
  const app = useChatApp();
  const open = useStore(app.dialog);
  const close = () => app.dialog.set(undefined);
  if (open === "settings") {
    return (
      <Dialog shape="drawer" title={t.settings} onClose={close}>
        <SettingsForm />
      </Dialog>
    );
  }
  if (open === "help") {
    return (
      <Dialog title={t.help} onClose={close}>
        <Help />
      </Dialog>
    );
  }
  if (open === "key") {
    const tryKey = async () => {
      await app.connect();
      return app.connection.value.kind === "ready";
    };
    return (
      <Dialog title={shell.keyTitle} onClose={close}>
        <KeyForm tryKey={tryKey} onDone={close} />
      </Dialog>
    );
  }
  return null;
}

function Help() {
  const t = useStrings(chatStrings);
  const keys: readonly (readonly [string, string])[] = [
    ["Enter", t.keys.send],
    ["Shift + Enter", t.keys.line],
    ["Esc", t.keys.stop],
    ["↑", t.keys.editLast],
    ["Ctrl / ⌘ + V", t.keys.paste],
    ["Alt + N", t.keys.newChat],
    ["Alt + S", t.keys.settings],
    ["Alt + H", t.keys.help],
  ];
  return (
    <div class="help">
      <h3>{t.about}</h3>
      <p>{t.aboutText}</p>
      <p>{t.privacy}</p>
      <h3>{t.shortcuts}</h3>
      <dl class="keys">
        {keys.map(([key, does]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
      <h3>{t.credits}</h3>
      <ul class="credits" lang="en">
        {examples.map(({ name, description, source }) => (
          <li key={name}>
            <b>{description}</b>: {source}
          </li>
        ))}
      </ul>
    </div>
  );
}

/** Changes apply from the next question on. */
function SettingsForm() {
  const t = useStrings(chatStrings);
  const now = useStore(settings);
  const beams = now.numBeams > 1;
  const systemId = useId();
  return (
    <form class="settings" onSubmit={(event) => event.preventDefault()}>
      <Slider name="temperature" label={t.temperature} note={t.temperatureNote} disabled={beams} />
      <Slider name="topP" label={t.topP} note={t.topPNote} disabled={beams || now.temperature === 0} />
      <SeedField disabled={beams || now.temperature === 0} />
      <Slider name="numBeams" label={t.numBeams} note={t.numBeamsNote} />
      <Slider name="repetitionPenalty" label={t.repetitionPenalty} note={t.repetitionPenaltyNote} />
      <Slider name="maxNewTokens" label={t.maxNewTokens} note={t.maxNewTokensNote} />
      <div class="setting">
        <label for={systemId}>{t.system}</label>
        <textarea
          id={systemId}
          rows={3}
          value={now.system}
          onInput={({ currentTarget }) => change({ system: currentTarget.value })}
        />
        <p class="note">{t.systemNote}</p>
      </div>
      <button type="button" class="button" onClick={() => settings.set(defaults)}>
        {t.reset}
      </button>
    </form>
  );
}

function change(some: Partial<Settings>): void {
  settings.update((now) => ({ ...now, ...some }));
}

interface SliderProps {
  readonly name: NumberSetting;
  readonly label: string;
  readonly note: string;
  readonly disabled?: boolean;
}

function Slider({ name, label, note, disabled }: SliderProps) {
  const value = useStore(settings)[name];
  const id = useId();
  return (
    <div class={disabled ? "setting off" : "setting"}>
      <label for={id}>{label}</label>
      <output for={id}>{value}</output>
      <input
        id={id}
        type="range"
        aria-describedby={`${id}-note`}
        {...bounds[name]}
        value={value}
        disabled={disabled}
        onInput={({ currentTarget }) => change({ [name]: Number(currentTarget.value) })}
      />
      <p class="note" id={`${id}-note`}>
        {note}
      </p>
    </div>
  );
}

function SeedField({ disabled }: { disabled: boolean }) {
  const t = useStrings(chatStrings);
  const { seed } = useStore(settings);
  const [typed, setTyped] = useState<string>();
  const id = useId();
  const text = typed ?? seed?.toString() ?? "";
  const wrong = text.trim() !== "" && readSeed(text) === undefined;
  return (
    <div class={disabled ? "setting off" : "setting"}>
      <label for={id}>{t.seed}</label>
      <input
        id={id}
        inputMode="numeric"
        autocomplete="off"
        aria-invalid={wrong}
        aria-describedby={`${id}-note`}
        disabled={disabled}
        value={text}
        onInput={({ currentTarget }) => {
          setTyped(currentTarget.value);
          const { seed: _, ...rest } = settings.value;
          const read = readSeed(currentTarget.value);
          settings.set(read === undefined ? rest : { ...rest, seed: read });
        }}
        onBlur={() => setTyped(undefined)}
      />
      <p class={wrong ? "error" : "note"} id={`${id}-note`}>
        {wrong ? t.seedWrong : t.seedNote}
      </p>
    </div>
  );
}
