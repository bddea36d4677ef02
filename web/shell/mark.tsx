/** The mark of the app: a frame of film. */
export function Mark() {
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
