/** How answers are searched for. What is changed holds from the next question on. */
import { useId, useState } from "preact/hooks";
import { useWords } from "../shell/language.ts";
import { useStore } from "../shell/store.ts";
import { bounds, defaults, type NumberSetting, readSeed, type Settings, settings } from "./settings.ts";
import { chatWords } from "./words.ts";

export function SettingsForm() {
  const t = useWords(chatWords);
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

interface SliderProperties {
  readonly name: NumberSetting;
  readonly label: string;
  readonly note: string;
  readonly disabled?: boolean;
}

function Slider({ name, label, note, disabled }: SliderProperties) {
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
  const t = useWords(chatWords);
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
      <p class={wrong ? "wrong" : "note"} id={`${id}-note`}>
        {wrong ? t.seedWrong : t.seedNote}
      </p>
    </div>
  );
}
