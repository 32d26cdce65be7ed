// Where prices of one kind lie on a scale that a column shares: the range as a line, its middle half as a bar, the median as a mark.

export interface Five {
  readonly least: number | undefined;
  readonly q1: number | undefined;
  readonly median: number | undefined;
  readonly q3: number | undefined;
  readonly most: number | undefined;
}

/** `most` is where the scale ends: its steps grow, since prices differ tenfold. `label` says the figures in words. */
export function Spread({ five, scale, label }: { five: Five; scale: (value: number) => number; label: string }) {
  const at = (value: number | undefined): string | undefined =>
    value === undefined ? undefined : `${(100 * Math.min(1, Math.max(0, scale(value)))).toFixed(1)}%`;
  const least = at(five.least);
  const most = at(five.most);
  const q1 = at(five.q1);
  const q3 = at(five.q3);
  const median = at(five.median);
  return (
    <svg class="spread" role="img" aria-label={label} width="100%" height="14">
      {least !== undefined && most !== undefined && <line class="range" x1={least} x2={most} y1="7" y2="7" />}
      {q1 !== undefined && q3 !== undefined && <line class="half" x1={q1} x2={q3} y1="7" y2="7" />}
      {median !== undefined && <line class="middle" x1={median} x2={median} y1="2" y2="12" />}
    </svg>
  );
}
