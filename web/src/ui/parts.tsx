// The small parts that views are made of: panels, states, figures, badges, buttons.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { incompleteOf } from "../data/people";
import { type Failure, here, isSaidAbove, type State } from "../data/readings";
import { type Json, tableOf } from "../data/shapes";
import { ago, plural, UNKNOWN } from "../format";
import { muted } from "../host/host";
import { Icon, type IconName } from "./icons";

export type Tone = "good" | "warn" | "bad" | "accent" | "plain";

/** `of` is what it is made of: where the page says above why there is nothing, it is not there. */
export function Panel(props: {
  title?: string;
  note?: ComponentChildren;
  side?: ComponentChildren;
  children: ComponentChildren;
  flush?: boolean;
  of?: readonly State[];
}) {
  if (props.of !== undefined && isEmptyAs(props.of)) return null;
  return (
    <section class={`panel${props.flush ? " flush" : ""}`} aria-label={props.title}>
      {props.title !== undefined && (
        <header>
          <h2>{props.title}</h2>
          {props.note !== undefined && <span class="quiet small">{props.note}</span>}
          {props.side !== undefined && <div class="side">{props.side}</div>}
        </header>
      )}
      {props.children}
    </section>
  );
}

export function Badge({ tone = "plain", children }: { tone?: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}

/**
 * A figure with its name; `note` says what it is made of, `of` by which readings. Its place is kept while it is not
 * known, and of how long ago it is stands there where it could not be read anew.
 */
export function Figure(props: {
  label: string;
  value: string;
  note?: ComponentChildren;
  tone?: Tone;
  unit?: string;
  of?: readonly State[];
}) {
  const since = props.value === UNKNOWN ? undefined : notAnewSince(props.of ?? []);
  return (
    <div class={`figure ${props.tone ?? "plain"}`}>
      <dt>{props.label}</dt>
      <dd class="value">
        {props.value}
        {props.unit !== undefined && props.value !== UNKNOWN && <span class="unit">{props.unit}</span>}
      </dd>
      <dd class={`note${since === undefined ? "" : " warn-text"}`}>
        {since === undefined ? props.note || "\u00a0" : `of ${ago(since, here.value)}, not read anew`}
      </dd>
    </div>
  );
}

export function Figures({ of, children }: { of: readonly State[]; children: ComponentChildren }) {
  return isEmptyAs(of) ? null : (
    <div class="figures panel">
      <dl>{children}</dl>
    </div>
  );
}

export function Button(props: {
  children: ComponentChildren;
  onPress: () => void;
  kind?: "plain" | "main" | "danger" | "link";
  icon?: IconName;
  busy?: boolean;
  disabled?: boolean;
  label?: string;
}) {
  return (
    <button
      type="button"
      class={`button ${props.kind ?? "plain"}`}
      aria-label={props.label}
      aria-busy={props.busy ?? false}
      disabled={(props.disabled ?? false) || (props.busy ?? false)}
      onClick={props.onPress}
    >
      {props.icon !== undefined && <Icon name={props.icon} />}
      {props.children}
    </button>
  );
}

export function IconButton(props: { icon: IconName; label: string; onPress: () => void; busy?: boolean }) {
  return (
    <button
      type="button"
      class={`icon-button${props.busy ? " busy" : ""}`}
      aria-label={props.label}
      aria-disabled={props.busy ?? false}
      title={props.label}
      onClick={props.busy ? undefined : props.onPress}
    >
      <Icon name={props.icon} />
    </button>
  );
}

/** A text with a button that copies it. */
export function Copy({ value, label }: { value: string; label: string }) {
  const [copied, setCopied] = useState(false);
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(value);
      setCopied(true);
      setTimeout(() => setCopied(false), 2000);
    } catch {
      // Hosts may forbid it; the text can be marked by hand.
    }
  };
  return (
    <span class="copy">
      <code class="mono foreign">{value}</code>
      <IconButton icon={copied ? "check" : "copy"} label={copied ? "Copied" : label} onPress={copy} />
    </span>
  );
}

/** A share of a whole, drawn; `label` says it in words. One that is not known is no empty bar: that reads as zero. */
export function Meter(props: { share: number | undefined; label: string; tone?: Tone }) {
  const share = Math.min(1, Math.max(0, props.share ?? 0));
  return (
    <span
      class={`meter ${props.share === undefined ? "unknown" : (props.tone ?? "accent")}`}
      role="img"
      aria-label={props.label}
    >
      <span style={{ width: `${(share * 100).toFixed(1)}%` }} />
    </span>
  );
}

export function Empty(props: { title: string; children?: ComponentChildren; icon?: IconName }) {
  return (
    <div class="empty">
      {props.icon !== undefined && <Icon name={props.icon} />}
      <p class="title">{props.title}</p>
      {props.children !== undefined && <p>{props.children}</p>}
    </div>
  );
}

/** Says how many rows of a list could not be read. */
export function Unread({ rows, what = "row", flush }: { rows: number; what?: string; flush?: boolean }) {
  if (rows === 0) return null;
  return <p class={`${flush ? "aside " : ""}small warn-text`}>{plural(rows, what)} could not be read.</p>;
}

/** Says why something has nothing but dashes: what it is made of could not be read, and the page does not say so above. */
export function Missing({ state, what }: { state: State; what: string }) {
  const { data, failure } = state;
  if (data !== undefined || failure === undefined || failure.code === "not_offered" || isSaidAbove(state)) return null;
  return (
    <p class="stale" role="status">
      <Icon name="warning" />
      <span>
        {what} could not be read: <span class="foreign">{failure.message}</span>
      </span>
    </p>
  );
}

/** What a list lacks, in the server's words. */
export function Incomplete({ data }: { data: Json }) {
  const said = incompleteOf(data);
  return said === undefined ? null : <p class="aside small warn-text foreign">{said}</p>;
}

const LONG_MS = 8000;

/** Grey bars where rows will stand. */
export function Loading({ rows = 3, label }: { rows?: number; label: string }) {
  const [isLong, setIsLong] = useState(false);
  useEffect(() => {
    const wait = setTimeout(() => setIsLong(true), LONG_MS);
    return () => clearTimeout(wait);
  }, []);
  return (
    <div class="loading" role="status" aria-label={label}>
      {isLong && <p class="quiet small">{label} takes longer than it should…</p>}
      {Array.from({ length: rows }, (_, i) => (
        <span key={i} class="bone" />
      ))}
    </div>
  );
}

const TITLES = tableOf<string>({
  api_key_missing: "There is no Lium API key yet",
  api_key_refused: "Lium does not take this API key",
  lium_unreachable: "Lium cannot be reached",
  unreachable: "The server does not answer",
  session_over: "This page's session is over",
  refused_by_server: "The server refused the call",
  refused_by_host: "The program that shows this page did not make the call",
});

/** Why something is not there, in the server's own words. */
export function Trouble({ failure, again }: { failure: Failure; again?: () => void }) {
  return (
    <div class="trouble" role="alert">
      <Icon name="warning" />
      <div>
        <p class="title">{TITLES.get(failure.code) ?? "This could not be read"}</p>
        <p class="foreign">{failure.message}</p>
        <p class="quiet small">
          <code class="mono">{failure.code}</code>
        </p>
      </div>
      {again !== undefined && <Button onPress={again}>Try again</Button>}
    </div>
  );
}

/** Whether nothing of the account can be read, so that a view shows `NoKey` in place of all it has. */
export function lacksKey({ data, failure }: State): boolean {
  return data === undefined && (failure?.code === "api_key_missing" || failure?.code === "api_key_refused");
}

/** Whether none of these readings has anything, and the page says above why. */
export function isEmptyAs(states: readonly State[]): boolean {
  return states.every(({ data }) => data === undefined) && isSaidAbove(...states);
}

/** When the oldest of these was read, where one has something that could not be read anew. */
function notAnewSince(states: readonly State[]): number | undefined {
  const times = states.flatMap(({ at, failure, data }) =>
    failure !== undefined && data !== undefined ? (at ?? []) : [],
  );
  return times.length === 0 ? undefined : Math.min(...times);
}

/** Why something cannot be read now, said once for the whole page: instead of it, or above what was read before. */
export function CutOff(props: { failure: Failure; since: number | undefined; again: () => void }) {
  const { failure, since, again } = props;
  if (since === undefined) return <Trouble failure={failure} again={again} />;
  return (
    <p class="stale" role="status">
      <Icon name="warning" />
      <span>
        Not read anew (as of {ago(since, here.value)}): <span class="foreign">{failure.message}</span>
      </span>
      <Button kind="link" onPress={again}>
        Try again
      </Button>
    </p>
  );
}

/** In place of a view of the account, where there is no key for it. */
export function NoKey({ failure }: { failure: Failure | undefined }) {
  return (
    <Panel>
      <div class="empty">
        <Icon name="key" />
        <p class="title">{TITLES.get(failure?.code ?? "") ?? "There is no Lium API key yet"}</p>
        <p class="narrow">
          Run <code class="mono">lium-mcp login</code> on the machine of the server, and agree in the browser. Or create
          a key at lium.io (Settings, API keys) and set it as <code class="mono">LIUM_API_KEY</code> for the server. The
          market can be looked at without one.
        </p>
        {failure !== undefined && failure.code !== "api_key_missing" && (
          <p class="narrow quiet small foreign">{failure.message}</p>
        )}
      </div>
    </Panel>
  );
}

/** What a reading has: its content, or in its place why there is none; a failure after content stands above it. */
export function Read(props: {
  state: State;
  label: string;
  rows?: number;
  /** Whether it stands on the page's ground, so that what loads needs a panel. */
  panel?: boolean;
  again?: () => void;
  /** Another part beside it says why this could not be read. */
  quiet?: boolean;
  children: (data: NonNullable<State["data"]>) => ComponentChildren;
}) {
  const { data } = props.state;
  const since = notAnewSince([props.state]);
  const isSaid = props.quiet === true || isSaidAbove(props.state);
  const failure = isSaid ? undefined : props.state.failure;
  if (data === undefined && isSaid && (props.quiet !== true || props.state.failure !== undefined || muted.value))
    return props.panel ? null : <p class="not-read quiet">Not read.</p>;
  const again = props.again === undefined ? {} : { again: props.again };
  if (data === undefined && failure?.code === "not_offered")
    return <p class="not-read quiet">This server does not offer it. {failure.message}</p>;
  if (data === undefined)
    return failure === undefined ? (
      <div class={props.panel ? "panel flush" : undefined}>
        <Loading label={`Reading ${props.label}`} rows={props.rows ?? 3} />
      </div>
    ) : (
      <Trouble failure={failure} {...again} />
    );
  return (
    <>
      {since !== undefined && !isSaidAbove(props.state) && (
        <p class="stale" role="status">
          <Icon name="warning" />
          <span>
            Of {ago(since, here.value)}, not read anew{failure !== undefined && ": "}
            <span class="foreign">{failure?.message}</span>
          </span>
        </p>
      )}
      {props.children(data)}
    </>
  );
}
