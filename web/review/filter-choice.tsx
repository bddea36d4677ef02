/** Which pairs are looked at. */
import { type Filter, filters, type Progress, type Selection } from "../../src/curation/review.ts";
import { useWords } from "../shell/language.ts";
import { visible } from "./visible.ts";
import { reviewWords } from "./words.ts";

interface Properties {
  readonly selection: Selection;
  readonly progress: Progress | undefined;
  readonly onChoose: (selection: Selection) => void;
}

export function FilterChoice({ selection, progress, onChoose }: Properties) {
  const t = useWords(reviewWords);
  const choose = (chosen: Selection, field: HTMLElement) => {
    // The keys of decisions work again.
    field.blur();
    onChoose(chosen);
  };
  const named = (filter: Filter) =>
    progress ? t.withCount(t.filters[filter], progress.counts[filter]) : t.filters[filter];
  return (
    <>
      <select
        class="small"
        aria-label={t.filter}
        value={selection.filter}
        onChange={({ currentTarget }) => choose({ filter: currentTarget.value as Filter }, currentTarget)}
      >
        {filters.map((filter) => (
          <option key={filter} value={filter}>
            {named(filter)}
          </option>
        ))}
      </select>
      {selection.filter === "ruled" && (
        <select
          class="small"
          aria-label={t.rule}
          value={selection.rule ?? ""}
          onChange={({ currentTarget: field }) =>
            choose({ filter: "ruled", ...(field.value !== "" && { rule: field.value }) }, field)
          }
        >
          <option value="">{t.anyRule}</option>
          {progress?.rules.map(({ rule, count }) => (
            <option key={rule} value={rule}>
              {t.withCount(visible(rule), count)}
            </option>
          ))}
        </select>
      )}
    </>
  );
}
