// Amounts by day, as bars that are cut into parts, below zero where something was given back; the figures stand in a
// table too.
import { scaleLinear } from "d3-scale";
import { useRef, useState } from "preact/hooks";
import { onScale } from "../format";
import { Plot, Ticks, within } from "./plot";
import { useWidth } from "./width";

export interface BarPart {
  readonly label: string;
  /** One for each bar. */
  readonly values: readonly number[];
}

interface BarsProps {
  /** What it shows, as a sentence for who does not see it. */
  readonly label: string;
  /** What the bars are of, short and in full. */
  readonly bars: readonly { readonly short: string; readonly full: string }[];
  readonly parts: readonly BarPart[];
  readonly value: (y: number) => string;
  readonly height?: number;
}

const ROOM = { top: 8, right: 4, bottom: 22, left: 52 };
const WIDEST = 44;
const LABEL_WIDTH = 46;

export function Bars({ label, bars, parts, value, height = 200 }: BarsProps) {
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box);
  const [cursor, setCursor] = useState<number>();
  const sums = bars.map((_, i) => parts.reduce((sum, part) => sum + (part.values[i] ?? 0), 0));
  const added = (i: number, sign: 1 | -1): number =>
    parts.reduce((sum, part) => sum + sign * Math.max(0, sign * (part.values[i] ?? 0)), 0);
  const most = Math.max(...bars.map((_, i) => added(i, 1)), 0.01);
  const least = Math.min(...bars.map((_, i) => added(i, -1)), 0);
  const y = scaleLinear([least * 1.05, most * 1.05], [height - ROOM.bottom, ROOM.top]);
  const ticks = y.ticks(4);
  const step = Math.max(1, (width - ROOM.left - ROOM.right) / Math.max(1, bars.length));
  const thick = Math.min(WIDEST, step * 0.7);
  const named = Math.max(1, Math.ceil(LABEL_WIDTH / step));
  const shown = cursor ?? bars.length - 1;
  const point = (clientX: number): void => {
    const left = box.current?.getBoundingClientRect().left ?? 0;
    setCursor(within(bars.length, Math.floor((clientX - left - ROOM.left) / step)));
  };
  const said = (i: number): string => {
    const of = parts.flatMap((part) =>
      (part.values[i] ?? 0) !== 0 ? `${part.label} ${value(part.values[i] ?? 0)}` : [],
    );
    return `${bars[i]?.full}: ${value(sums[i] ?? 0)}${of.length === 0 ? "" : `, of which ${of.join(", ")}`}`;
  };
  return (
    <figure class="chart">
      <p class="readout" role="status">
        {cursor !== undefined && (
          <span>
            <span class="quiet">{bars[cursor]?.full}</span> <strong>{value(sums[cursor] ?? 0)}</strong>
          </span>
        )}
        {parts.map((part, i) =>
          cursor !== undefined && (part.values[cursor] ?? 0) === 0 ? null : (
            <span key={i} class={`key block p${i}`}>
              <bdi>{part.label.slice(0, 60)}</bdi>
              {cursor !== undefined && <strong> {value(part.values[cursor] ?? 0)}</strong>}
            </span>
          ),
        )}
      </p>
      <Plot
        box={box}
        width={width}
        height={height}
        label={label}
        count={bars.length}
        now={shown}
        words={said(shown)}
        onPoint={(event) => point(event.clientX)}
        onStep={(by) => setCursor(within(bars.length, shown + by))}
        onLeave={() => setCursor(undefined)}
      >
        <Ticks ticks={ticks} at={y} words={onScale(ticks, value)} left={ROOM.left} right={width - ROOM.right} />
        {bars.map((bar, i) => {
          const left = ROOM.left + i * step + (step - thick) / 2;
          // Charges are heaped up from zero, and what was given back down from it.
          let [top, bottom] = [0, 0];
          return (
            <g key={bar.full} class={`bar${cursor === undefined || cursor === i ? "" : " faint"}`}>
              {parts.map((part, j) => {
                const amount = part.values[i] ?? 0;
                if (amount === 0) return null;
                const from = amount > 0 ? top : bottom;
                if (amount > 0) top += amount;
                else bottom += amount;
                const [upper, lower] = [y(Math.max(from, from + amount)), y(Math.min(from, from + amount))];
                return (
                  <rect key={j} class={`p${j}`} x={left} y={upper} width={thick} height={Math.max(1, lower - upper)} />
                );
              })}
              {(bars.length - 1 - i) % named === 0 && (
                <text class="tick-x" x={left + thick / 2} y={height - 6} text-anchor="middle">
                  {bar.short}
                </text>
              )}
            </g>
          );
        })}
        {least < 0 && <line class="zero" x1={ROOM.left} x2={width - ROOM.right} y1={y(0)} y2={y(0)} />}
      </Plot>
      <details class="equal">
        <summary>As a table</summary>
        <div class="scroll">
          <table>
            <caption class="unseen">{label}</caption>
            <thead>
              <tr>
                <th scope="col">Day</th>
                <th scope="col">In all</th>
                {parts.map((part, i) => (
                  <th key={i} scope="col">
                    <bdi>{part.label.slice(0, 60)}</bdi>
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {bars.map((bar, i) => (
                <tr key={bar.full}>
                  <th scope="row">{bar.full}</th>
                  <td>{value(sums[i] ?? 0)}</td>
                  {parts.map((part, j) => (
                    <td key={j}>{value(part.values[i] ?? 0)}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </figure>
  );
}
