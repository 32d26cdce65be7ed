// Things by two figures whose steps grow: a mark for each, its name where there is room, and all of them in a table.
import { scaleLog } from "d3-scale";
import { useMemo, useRef, useState } from "preact/hooks";
import { onScale } from "../format";
import { Plot, Ticks, within } from "./plot";
import { useWidth } from "./width";

export interface Mark {
  readonly name: string;
  /** Above zero, as `y` is. */
  readonly x: number;
  readonly y: number;
  /** Up to where a line from the mark goes. */
  readonly upTo: number | undefined;
}

interface ScatterProps {
  /** What it shows, as a sentence for who does not see it. */
  readonly label: string;
  readonly marks: readonly Mark[];
  readonly xTitle: string;
  readonly x: (value: number) => string;
  readonly y: (value: number) => string;
  /** All that is known of one, in words. */
  readonly said: (mark: Mark) => string;
  readonly onChoose: (mark: Mark) => void;
  readonly height?: number;
}

const ROOM = { top: 10, right: 14, bottom: 36, left: 48 };
const LINE_PX = 12;
const LETTER_PX = 6.4;
const MOST_LETTERS = 40;
const STEPS = [1, 2, 5];
const MOST_FINE_POWERS = 3;
const MOST_POWERS = 8;

export function Scatter({ label, marks, xTitle, x, y, said, onChoose, height = 340 }: ScatterProps) {
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box);
  const [cursor, setCursor] = useState<number>();
  const right = Math.max(ROOM.left + 40, width - ROOM.right);
  const sorted = useMemo(() => [...marks].sort((a, b) => a.x - b.x || a.y - b.y), [marks]);
  const drawn = useMemo(() => {
    const [xs, ys] = [sorted.map((mark) => mark.x), sorted.flatMap((mark) => [mark.y, mark.upTo ?? mark.y])];
    const alongX = scaleLog([Math.min(...xs) / 1.15, Math.max(...xs) * 1.5], [ROOM.left, right]);
    const alongY = scaleLog([Math.min(...ys) / 1.2, Math.max(...ys) * 1.2], [height - ROOM.bottom, ROOM.top]);
    const placed = sorted.map((mark) => ({
      mark,
      left: alongX(mark.x),
      top: alongY(mark.y),
      end: alongY(mark.upTo ?? mark.y),
    }));
    return { placed, named: namesThatFit(placed, right), alongX, alongY };
  }, [sorted, right, height]);
  if (marks.length === 0) return null;
  const { placed, named, alongX, alongY } = drawn;
  const shown = cursor === undefined ? undefined : sorted[cursor];
  const [least = 0, most = 0] = alongY.domain();
  const ticksY = decades(least, most);
  const point = (event: PointerEvent): number => {
    const at = box.current?.getBoundingClientRect();
    const [px, py] = [event.clientX - (at?.left ?? 0), event.clientY - (at?.top ?? 0)];
    let best = 0;
    for (const [i, each] of placed.entries()) {
      const other = placed[best];
      if (other !== undefined && away(each, px, py) < away(other, px, py)) best = i;
    }
    return best;
  };
  return (
    <figure class="chart scatter">
      <p class="readout" role="status">
        {shown === undefined ? <span class="quiet">Lowest price, and up to the median</span> : <bdi>{said(shown)}</bdi>}
      </p>
      <Plot
        box={box}
        width={width}
        height={height}
        label={label}
        count={marks.length}
        now={cursor ?? 0}
        words={said(shown ?? (sorted[0] as Mark))}
        upDown
        onPoint={(event) => setCursor(point(event))}
        onStep={(by) => setCursor((was) => within(marks.length, (was ?? -1) + by))}
        onLeave={() => setCursor(undefined)}
        onChoose={() => shown !== undefined && onChoose(shown)}
      >
        <Ticks ticks={ticksY} at={alongY} words={onScale(ticksY, y)} left={ROOM.left} right={right} />
        {ticksOf(sorted, alongX).map((tick) => (
          <text key={tick} class="tick-x" x={alongX(tick)} y={height - 20} text-anchor="middle">
            {x(tick)}
          </text>
        ))}
        <text class="tick-x" x={(ROOM.left + right) / 2} y={height - 4} text-anchor="middle">
          {xTitle}
        </text>
        {placed.map(({ mark, left, top, end }, i) => (
          <g key={i} class={`mark${cursor === undefined || cursor === i ? "" : " faint"}`}>
            {end < top && <line x1={left} x2={left} y1={top} y2={end} />}
            <circle cx={left} cy={top} r={cursor === i ? 5.5 : 4} />
            {(cursor === undefined ? named.has(i) : cursor === i) && (
              <text
                x={named.get(i) === "left" ? left - 8 : left + 8}
                y={top}
                dy="0.32em"
                text-anchor={named.get(i) === "left" ? "end" : "start"}
              >
                {mark.name.slice(0, MOST_LETTERS)}
              </text>
            )}
          </g>
        ))}
      </Plot>
      <details class="equal">
        <summary>As a list</summary>
        <ul class="scroll">
          {sorted.map((mark, i) => (
            <li key={i}>
              <bdi>{said(mark)}</bdi>
            </li>
          ))}
        </ul>
      </details>
    </figure>
  );
}

interface Placed {
  readonly mark: Mark;
  readonly left: number;
  readonly top: number;
  /** Where the line from the mark ends, at its top or above. */
  readonly end: number;
}

function away({ left, top }: Placed, x: number, y: number): number {
  return (left - x) ** 2 + (top - y) ** 2;
}

type Side = "right" | "left";

/** On which side marks can be named so that no name lies on another name, mark or its line, or past the edge. */
function namesThatFit(placed: readonly Placed[], right: number): ReadonlyMap<number, Side> {
  const taken = placed.map(({ left, top, end }) => ({ from: left - 5, to: left + 5, top, end: Math.min(end, top) }));
  const named = new Map<number, Side>();
  for (const side of ["right", "left"] as const)
    for (const [i, { mark, left, top }] of placed.entries()) {
      if (named.has(i)) continue;
      const room = 8 + Math.min(MOST_LETTERS, mark.name.length) * LETTER_PX;
      const [from, to] = side === "right" ? [left + 7, left + room] : [left - room, left - 7];
      const meets = taken.some(
        (other, j) =>
          j !== i && other.end - LINE_PX < top && top < other.top + LINE_PX && other.from < to && from < other.to,
      );
      if (meets || from < ROOM.left || to > right + ROOM.right) continue;
      named.set(i, side);
      taken.push({ from, to, top, end: top });
    }
  return named;
}

/** 0.1, 0.2, 0.5, 1, ... between two figures; over a wide range only tenfold steps, and no more than can be read. */
function decades(least: number, most: number): readonly number[] {
  const found: number[] = [];
  const powers = Math.log10(most) - Math.log10(least);
  const steps = powers > MOST_FINE_POWERS ? [1] : STEPS;
  const by = Math.max(1, Math.ceil(powers / MOST_POWERS));
  for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power += by)
    for (const step of steps) {
      const value = step * 10 ** power;
      if (value >= least && value <= most) found.push(value);
    }
  return found;
}

/** The figures that marks have, as far as their words do not touch. */
function ticksOf(sorted: readonly Mark[], along: (value: number) => number): readonly number[] {
  const found: number[] = [];
  for (const { x } of sorted) {
    const last = found.at(-1);
    if (last === undefined || along(x) - along(last) > 30) found.push(x);
  }
  return found;
}
