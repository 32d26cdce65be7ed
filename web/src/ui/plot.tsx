// What charts have in common: a place to draw in, over which pointer and keys move a cursor, and the lines of its scale.
import type { ComponentChildren, RefObject } from "preact";

interface PlotProps {
  readonly box: RefObject<HTMLDivElement | null>;
  /** Zero until it is known: nothing is drawn yet. */
  readonly width: number;
  readonly height: number;
  /** What it shows, as a sentence for who does not see it. */
  readonly label: string;
  /** How many places the cursor has, at which it is or would begin, and what is there, in words. */
  readonly count: number;
  readonly now: number;
  readonly words: string;
  /** Whether up and down move it too. */
  readonly upDown?: boolean;
  readonly onPoint: (event: PointerEvent) => void;
  readonly onStep: (by: number) => void;
  readonly onLeave: () => void;
  readonly onChoose?: () => void;
  readonly children: ComponentChildren;
}

export function Plot(props: PlotProps) {
  const { box, width, height, count } = props;
  const upDown = props.upDown === true ? { ArrowDown: -1, ArrowUp: 1 } : {};
  const steps: Readonly<Record<string, number>> = {
    ArrowLeft: -1,
    ArrowRight: 1,
    Home: -count,
    End: count,
    ...upDown,
  };
  return (
    <div
      ref={box}
      class="plot"
      style={{ height: `${height}px` }}
      role="slider"
      tabIndex={0}
      aria-label={props.label}
      aria-valuemin={0}
      aria-valuemax={Math.max(0, count - 1)}
      aria-valuenow={props.now}
      aria-valuetext={props.words}
      onPointerMove={props.onPoint}
      onPointerLeave={props.onLeave}
      onBlur={props.onLeave}
      onKeyDown={(event) => {
        const by = steps[event.key];
        if (by === undefined) return;
        event.preventDefault();
        props.onStep(by);
      }}
    >
      {width > 0 && (
        <svg width={width} height={height} aria-hidden="true" onClick={props.onChoose}>
          {props.children}
        </svg>
      )}
    </div>
  );
}

/** A place that there is, nearest to one that there may not be. */
export function within(count: number, place: number): number {
  return Math.min(count - 1, Math.max(0, place));
}

interface TicksProps {
  readonly ticks: readonly number[];
  readonly at: (tick: number) => number;
  readonly words: (tick: number) => string;
  readonly left: number;
  readonly right: number;
}

/** Lines from side to side, each with its figure before it. */
export function Ticks({ ticks, at, words, left, right }: TicksProps) {
  return (
    <>
      {ticks.map((tick) => (
        <g key={tick} class="tick" transform={`translate(0 ${at(tick)})`}>
          <line x1={left} x2={right} />
          <text x={left - 8} dy="0.32em" text-anchor="end">
            {words(tick)}
          </text>
        </g>
      ))}
    </>
  );
}
