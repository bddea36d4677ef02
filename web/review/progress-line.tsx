/** How far the review is, and how long it will take. */
import type { Progress } from "../../src/curation/review.ts";
import { useWords } from "../shell/language.ts";
import { type ReviewWords, reviewWords } from "./words.ts";

export function ProgressLine({ progress: { reviewed, all, pace } }: { progress: Progress }) {
  const t = useWords(reviewWords);
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

function duration(milliseconds: number, t: ReviewWords): string {
  const minutes = Math.ceil(milliseconds / 60_000);
  return minutes < 60 ? t.minutes(minutes) : t.hours(Math.floor(minutes / 60), minutes % 60);
}
