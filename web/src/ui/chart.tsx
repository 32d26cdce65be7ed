// Charts over time, drawn as SVG: lines with a cursor that pointer and arrow keys move, and small ones for a cell.
// The figures of each stand in a table too.
import { scaleLinear, scaleTime } from "d3-scale";
import { area, line } from "d3-shape";
import { useMemo, useRef, useState } from "preact/hooks";
import { onScale } from "../format";
import { Plot, Ticks, within } from "./plot";
import { useWidth } from "./width";

export interface Point {
  /** Milliseconds since 1970. */
  readonly x: number;
  /** Undefined leaves a gap. */
  readonly y: number | undefined;
}

export interface Series {
  readonly label: string;
  readonly points: readonly Point[];
  /** What is expected rather than known. */
  readonly dashed?: boolean;
  /** Filled down to the ground. */
  readonly filled?: boolean;
  readonly tone?: "accent" | "plain" | "good" | "warn" | "bad";
}

interface TimeChartProps {
  /** What it shows, as a sentence for who does not see it. */
  readonly label: string;
  readonly series: readonly Series[];
  /** How a value is written. */
  readonly value: (y: number) => string;
  /** How a moment is written. */
  readonly time: (x: number) => string;
  readonly height?: number;
  /** Whether the ground is zero; otherwise it is near the least value. */
  readonly fromZero?: boolean;
}

const ROOM = { top: 8, right: 8, bottom: 22, left: 52 };
const MOST_ROWS = 200;

export function TimeChart({ label, series, value, time, height = 200, fromZero = true }: TimeChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box);
  const [cursor, setCursor] = useState<number>();
  const moments = useMemo(
    () => [...new Set(series.flatMap(({ points }) => points.map(({ x }) => x)))].sort((a, b) => a - b),
    [series],
  );
  const ys = series.flatMap(({ points }) => points.flatMap(({ y }) => y ?? []));
  const first = moments[0];
  const last = moments.at(-1);
  if (first === undefined || last === undefined || ys.length === 0) return null;
  const x = scaleTime([first, last], [ROOM.left, Math.max(ROOM.left + 40, width - ROOM.right)]);
  const least = Math.min(...ys);
  const most = Math.max(...ys);
  const padding = most === least ? Math.abs(most) || 1 : (most - least) * 0.08;
  const y = scaleLinear(
    [fromZero ? Math.min(0, least) : least - padding, most + padding],
    [height - ROOM.bottom, ROOM.top],
  );
  const ticksX = x.ticks(Math.max(2, Math.floor(width / 110)));
  const ticksY = y.ticks(4);
  const at = cursor === undefined ? undefined : moments[cursor];
  const point = (clientX: number): void => {
    const left = box.current?.getBoundingClientRect().left ?? 0;
    const wanted = x.invert(clientX - left).getTime();
    setCursor(nearest(moments, wanted));
  };
  const step = (by: number): void =>
    setCursor((was) => within(moments.length, (was ?? (by > 0 ? -1 : moments.length)) + by));
  return (
    <figure class="chart">
      <p class="readout" role="status">
        {at === undefined ? (
          <Legend series={series} />
        ) : (
          <>
            <span class="quiet">{time(at)}</span>
            {series.map((each) => {
              const y = valueAt(each, at);
              return y === undefined ? null : (
                <span key={each.label} class={`key ${each.tone ?? "accent"}${each.dashed ? " dashed" : ""}`}>
                  <bdi>{each.label}</bdi> <strong>{value(y)}</strong>
                </span>
              );
            })}
          </>
        )}
      </p>
      <Plot
        box={box}
        width={width}
        height={height}
        label={label}
        count={moments.length}
        now={cursor ?? moments.length - 1}
        words={said(series, at ?? last, value, time)}
        onPoint={(event) => point(event.clientX)}
        onStep={step}
        onLeave={() => setCursor(undefined)}
      >
        <Ticks ticks={ticksY} at={y} words={onScale(ticksY, value)} left={ROOM.left} right={width - ROOM.right} />
        {ticksX.map((tick) => (
          <text key={tick.getTime()} class="tick-x" x={x(tick)} y={height - 6} text-anchor="middle">
            {tickWords(tick)}
          </text>
        ))}
        {series.map((each) => {
          const drawn = line<Point>(
            (p) => x(p.x),
            (p) => y(p.y ?? 0),
          ).defined((p) => p.y !== undefined);
          const ground = area<Point>(
            (p) => x(p.x),
            y.range()[0] ?? 0,
            (p) => y(p.y ?? 0),
          ).defined((p) => p.y !== undefined);
          return (
            <g key={each.label} class={`series ${each.tone ?? "accent"}${each.dashed ? " dashed" : ""}`}>
              {each.filled && <path class="ground" d={ground([...each.points]) ?? ""} />}
              <path class="stroke" d={drawn([...each.points]) ?? ""} />
              {each.points.length === 1 && each.points[0]?.y !== undefined && (
                <circle cx={x(each.points[0].x)} cy={y(each.points[0].y)} r="3" />
              )}
            </g>
          );
        })}
        {at !== undefined && (
          <g class="cursor">
            <line x1={x(at)} x2={x(at)} y1={ROOM.top} y2={height - ROOM.bottom} />
            {series.map((each) => {
              const value = valueAt(each, at);
              return value === undefined ? null : (
                <circle key={each.label} class={each.tone ?? "accent"} cx={x(at)} cy={y(value)} r="3.5" />
              );
            })}
          </g>
        )}
      </Plot>
      <details class="equal">
        <summary>As a table</summary>
        <div class="scroll">
          <table>
            <caption class="unseen">{label}</caption>
            <thead>
              <tr>
                <th scope="col">Time</th>
                {series.map((each) => (
                  <th key={each.label} scope="col">
                    <bdi>{each.label}</bdi>
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {thinned(moments).map((moment) => (
                <tr key={moment}>
                  <th scope="row">{time(moment)}</th>
                  {series.map((each) => {
                    const y = valueAt(each, moment);
                    return <td key={each.label}>{y === undefined ? "–" : value(y)}</td>;
                  })}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </figure>
  );
}

const hour = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });

/** The time, and at midnight the day. */
function tickWords(tick: Date): string {
  return tick.getHours() === 0 && tick.getMinutes() === 0 ? day.format(tick) : hour.format(tick);
}

/** All values of one moment as a sentence. */
function said(
  series: readonly Series[],
  at: number,
  value: (y: number) => string,
  time: (x: number) => string,
): string {
  const values = series.flatMap((each) => {
    const y = valueAt(each, at);
    return y === undefined ? [] : `${each.label} ${value(y)}`;
  });
  return `${time(at)}: ${values.join(", ")}`;
}

function Legend({ series }: { series: readonly Series[] }) {
  return (
    <>
      {series.map((each) => (
        <span key={each.label} class={`key ${each.tone ?? "accent"}${each.dashed ? " dashed" : ""}`}>
          <bdi>{each.label}</bdi>
        </span>
      ))}
    </>
  );
}

/** A line as small as a word. `label` says in words what it shows. */
export function Spark({
  points,
  label,
  width = 84,
  height = 22,
}: {
  points: readonly Point[];
  label: string;
  width?: number;
  height?: number;
}) {
  const known = points.filter((p) => p.y !== undefined);
  const xs = known.map((p) => p.x);
  const ys = known.map((p) => p.y ?? 0);
  if (known.length < 2) return <span class="quiet">–</span>;
  const x = scaleLinear([Math.min(...xs), Math.max(...xs)], [1, width - 3]);
  const least = Math.min(...ys);
  const most = Math.max(...ys);
  const y = scaleLinear(least === most ? [least - 1, most + 1] : [least, most], [height - 3, 3]);
  const drawn = line<Point>(
    (p) => x(p.x),
    (p) => y(p.y ?? 0),
  );
  const end = known.at(-1);
  return (
    <svg class="spark" width={width} height={height} role="img" aria-label={label}>
      <path d={drawn(known) ?? ""} />
      {end !== undefined && <circle cx={x(end.x)} cy={y(end.y ?? 0)} r="2" />}
    </svg>
  );
}

function valueAt(series: Series, x: number): number | undefined {
  return series.points.find((p) => p.x === x)?.y;
}

/** The index of the moment that is nearest. */
export function nearest(moments: readonly number[], wanted: number): number {
  let best = 0;
  for (const [i, moment] of moments.entries())
    if (Math.abs(moment - wanted) < Math.abs((moments[best] ?? 0) - wanted)) best = i;
  return best;
}

/** Not more rows than somebody reads: evenly taken, with the first and the last. */
export function thinned<T>(rows: readonly T[], most = MOST_ROWS): readonly T[] {
  if (rows.length <= most) return rows;
  return Array.from({ length: most }, (_, i) => rows[Math.round((i * (rows.length - 1)) / (most - 1))] as T);
}
