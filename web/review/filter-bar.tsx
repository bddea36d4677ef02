/** The filter of the review, and its progress. */
import { type Filter, filters, type Progress, type Selection } from "../../src/curation/review.ts";
import { useStrings } from "../shell/preferences.ts";
import { type ReviewStrings, reviewStrings } from "./strings.ts";
import { showHidden } from "./text.ts";

interface FilterSelectProps {
  readonly selection: Selection;
  readonly progress: Progress | undefined;
  readonly onChange: (selection: Selection) => void;
}

export function FilterSelect({ selection, progress, onChange }: FilterSelectProps) {
  const t = useStrings(reviewStrings);
  const change = (selected: Selection, field: HTMLElement) => {
    // Return the focus, so that the shortcuts work again.
    field.blur();
    onChange(selected);
  };
  const label = (filter: Filter) =>
    progress ? t.withCount(t.filters[filter], progress.counts[filter]) : t.filters[filter];
  return (
    <>
      <select
        class="small"
        aria-label={t.filter}
        value={selection.filter}
        onChange={({ currentTarget }) => change({ filter: currentTarget.value as Filter }, currentTarget)}
      >
        {filters.map((filter) => (
          <option key={filter} value={filter}>
            {label(filter)}
          </option>
        ))}
      </select>
      {selection.filter === "ruled" && (
        <select
          class="small"
          aria-label={t.rule}
          value={selection.rule ?? ""}
          onChange={({ currentTarget: field }) => change({ filter: "ruled", rule: field.value || undefined }, field)}
        >
          <option value="">{t.anyRule}</option>
          {progress?.rules.map(({ rule, count }) => (
            <option key={rule} value={rule}>
              {t.withCount(showHidden(rule), count)}
            </option>
          ))}
        </select>
      )}
    </>
  );
}

export function ReviewProgress({ progress: { reviewed, all, pace } }: { progress: Progress }) {
  const t = useStrings(reviewStrings);
  const left = all - reviewed;
  return (
    <div class="review-progress">
      <progress aria-label={t.progress} max={Math.max(all, 1)} value={reviewed} />
      <span>{t.reviewed(reviewed, all)}</span>
      {pace !== undefined && pace > 0 && <span>{t.perMinute((60_000 / pace).toPrecision(2))}</span>}
      {pace !== undefined && left > 0 && <span>{t.left(duration(pace * left, t))}</span>}
    </div>
  );
}

function duration(milliseconds: number, t: ReviewStrings): string {
  const minutes = Math.ceil(milliseconds / 60_000);
  return minutes < 60 ? t.minutes(minutes) : t.hours(Math.floor(minutes / 60), minutes % 60);
}
