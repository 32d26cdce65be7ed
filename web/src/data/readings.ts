// Readings: tool calls that only read, kept fresh while somebody looks at them.
//
// A reading is one tool with its arguments. All who use the same one share it. It is called when it is first looked at,
// then every so often while the page is visible and somebody is there, more rarely after failures, and never so often
// that all of them together pass what a page may ask of Lium (60 requests a minute for the whole account).
import { computed, type Signal, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { type Answer, ended, type Host, muted, NO_CALLS, type Trouble as TroubleCode, trouble } from "../host/host";
import { readable } from "./answers";
import { ofReading } from "./people";
import { type Json, moment } from "./shapes";

export interface Failure {
  readonly code: string;
  readonly message: string;
}

export interface State {
  /** The newest answer, also while a later one failed. */
  readonly data: Json | undefined;
  /** When it came, on this machine's clock. */
  readonly at: number | undefined;
  /** Why the newest call failed. */
  readonly failure: Failure | undefined;
  readonly loading: boolean;
}

export interface Spec {
  /** A tool that only reads, or the address of a resource (lium://...). */
  readonly tool: string;
  readonly args?: Json;
  /** How often it is read again; without, once. */
  readonly everySeconds?: number;
}

/**
 * Calls in a minute that readings may make by themselves; a call is one request to Lium to five, and agents on the same
 * account need theirs. What a person asks for goes beyond it.
 */
const CALLS_PER_MINUTE = 16;
const AT_ONCE = 4;
const SLOWEST_SECONDS = 300;
/**
 * Nobody touches the page so long: it stops reading until somebody does. A conversation may hold many pages, of which
 * people look at the last.
 */
const ASLEEP_AFTER_MS = { browser: 15 * 60_000, conversation: 3 * 60_000 };
/** Longer than any tool takes that only reads. */
const LONGEST_READING_MS = 60_000;
/** So long after an act Lium's lists may be those of before, and so soon they are read again. */
const SETTLED_SECONDS = 20;
const UNSETTLED_EVERY_SECONDS = 8;
/** A wrong key or a missing tool does not mend itself within seconds. */
const LASTING = new Set([
  "not_offered",
  "refused_by_host",
  "refused_by_server",
  "api_key_missing",
  "api_key_refused",
  "session_over",
]);
/** Such a call did not come to the tool. */
const NOT_ASKED = new Set<string>(["refused_by_host", "no_answer"] satisfies TroubleCode[]);

/** The clock of what is shown: that of the server, which in a sandbox may run fast. Ticks each second. */
export const now = signal(Date.now());
/** The clock of this machine, by which it is known how old answers are. Ticks with the other. */
export const here = signal(Date.now());
/** Whether readings rest because nobody was here for a while. */
export const asleep = signal(false);

/** A view says itself, once, what to do about these. */
const OF_THE_KEY = new Set(["api_key_missing", "api_key_refused"]);
/** Why several of the readings that are looked at fail, each reason once. */
const shared = signal<readonly Failure[]>([]);
/** What the page says above, once, of what cannot be read now. */
export const cutOff = computed(() => (muted.value ? [NO_CALLS] : shared.value));

/** Whether the page says above why these have nothing new: then they need not. */
export function isSaidAbove(...states: readonly State[]): boolean {
  return states.every(({ failure }) =>
    failure === undefined ? muted.value : cutOff.value.some((why) => isSame(failure, why)),
  );
}

function isSame(one: Failure, other: Failure): boolean {
  return one.code === other.code && one.message === other.message;
}

/** When the oldest was read of what fails in this way, on this machine's clock; undefined where it never was. */
export function readBefore(why: Failure): number | undefined {
  const states = lookedAt().map(({ state }) => state.value);
  const times = states.flatMap(({ failure, at }) => (failure !== undefined && isSame(failure, why) ? (at ?? []) : []));
  return times.length === 0 ? undefined : Math.min(...times);
}

/** When the oldest of what is looked at was read, on this machine's clock, and whether all of it could be read anew. */
export function oldest(): { readonly at: number | undefined; readonly isWhole: boolean } {
  const states = [...entries.values()].filter(({ lookers }) => lookers.size > 0).map(({ state }) => state.value);
  const times = states.flatMap(({ at }) => at ?? []);
  return {
    at: times.length === 0 ? undefined : Math.min(...times),
    isWhole: states.every(({ failure }) => failure === undefined || failure.code === "not_offered"),
  };
}

/** The tools that are looked at: resources are not there in every host, and views do without. */
function lookedAt(): readonly Entry[] {
  return [...entries.values()].filter(({ spec, lookers }) => lookers.size > 0 && !spec.tool.includes("://"));
}

/** Finds out which tools that are looked at fail in one way; while one of them is first asked, nothing changes. */
function judge(): void {
  const seen = lookedAt();
  if (seen.some(({ state: { value } }) => value.data === undefined && value.failure === undefined)) return;
  const failures = seen.flatMap(({ wasAsked, state }) => (wasAsked ? (state.value.failure ?? []) : []));
  const found = failures.filter(
    (one, i) =>
      !OF_THE_KEY.has(one.code) &&
      failures.findIndex((other) => isSame(one, other)) === i &&
      failures.filter((other) => isSame(one, other)).length > 1,
  );
  const before = shared.value;
  if (found.length !== before.length || !found.every((one, i) => isSame(one, before[i] ?? one))) shared.value = found;
}

let host: Host | undefined;
let ahead = 0;
let lastTouch = Date.now();
let onScreen = true;
let recent: number[] = [];
let running = 0;
const entries = new Map<string, Entry>();

interface Entry {
  readonly spec: Spec;
  readonly state: Signal<State>;
  /** Who looks, and how often each wants it read. */
  readonly lookers: Map<symbol, number>;
  failures: number;
  /** Whether the page has asked for it, and not only been given it. */
  wasAsked: boolean;
  dueAt: number;
  /** Until when what was changed here may not yet be seen in it. */
  settlesUntil: number;
  /** Something was changed here since it was read: to read it anew is what the person asks for. */
  isOutdated: boolean;
  inFlight: Promise<void> | undefined;
}

export function keyOf({ tool, args = {} }: Spec): string {
  const given = Object.entries(args).filter(([, value]) => value !== undefined);
  return JSON.stringify([tool, given.sort(([a], [b]) => (a < b ? -1 : 1))]);
}

function entryOf(spec: Spec): Entry {
  const key = keyOf(spec);
  let entry = entries.get(key);
  if (entry === undefined) {
    const state = signal<State>({ data: undefined, at: undefined, failure: undefined, loading: false });
    entry = {
      spec,
      state,
      lookers: new Map(),
      failures: 0,
      wasAsked: false,
      dueAt: 0,
      settlesUntil: 0,
      isOutdated: false,
      inFlight: undefined,
    };
    entries.set(key, entry);
  }
  return entry;
}

/** Uses a reading while the component is there. With undefined it reads nothing. */
export function useReading(spec: Spec | undefined): State {
  const key = spec === undefined ? "" : keyOf(spec);
  const every = spec?.everySeconds ?? Number.POSITIVE_INFINITY;
  useEffect(() => {
    if (spec === undefined) return undefined;
    const entry = entryOf(spec);
    const me = Symbol();
    entry.lookers.set(me, every);
    const { at, failure } = entry.state.value;
    const next = (at ?? 0) + every * 1000;
    // What has failed so far waits as it would if somebody had looked all the time.
    if (Number.isFinite(next) && (at !== undefined || failure === undefined)) entry.dueAt = Math.min(entry.dueAt, next);
    turn();
    return () => entry.lookers.delete(me);
  }, [key, every]);
  return spec === undefined ? NOTHING : entryOf(spec).state.value;
}

const NOTHING: State = { data: undefined, at: undefined, failure: undefined, loading: false };

/**
 * Reads all again that was read before something was changed here: what is looked at now and once more when Lium has had
 * time to see it, the rest when it is looked at next.
 */
export function refreshAfterAct(): void {
  touched();
  const until = Date.now() + SETTLED_SECONDS * 1000;
  for (const entry of entries.values()) {
    entry.settlesUntil = until;
    entry.dueAt = 0;
    entry.isOutdated = true;
    // What is under way was asked before.
    if (entry.lookers.size > 0 && !muted.value) void (entry.inFlight ?? Promise.resolve()).then(() => read(entry));
  }
}

/** Reads what is looked at of these tools again now, or all that is looked at. */
export function refresh(...tools: readonly string[]): Promise<void> {
  touched();
  if (muted.value) return Promise.resolve();
  const wanted = [...entries.values()].filter(
    ({ spec, lookers }) => lookers.size > 0 && (tools.length === 0 || tools.includes(spec.tool)),
  );
  // What nobody looks at now is read when it is looked at next.
  for (const entry of entries.values())
    if (entry.lookers.size === 0 && (tools.length === 0 || tools.includes(entry.spec.tool))) entry.dueAt = 0;
  return Promise.all(wanted.map((entry) => read(entry))).then(() => undefined);
}

/** Puts an answer that came by another way, such as the one that the page was opened with; a part is read anew at once. */
export function seed(spec: Spec, answer: Answer, isPart = false): void {
  const entry = entryOf(spec);
  take(entry, answer);
  if (isPart) entry.dueAt = 0;
}

/** Begins reading through this host. Returns what ends it. */
export function begin(through: Host): () => void {
  host = through;
  const tick = setInterval(() => {
    here.value = Date.now();
    now.value = here.value + ahead;
    turn();
  }, 1000);
  const woken = (): void => {
    touched();
    turn();
  };
  const signs = ["pointerdown", "keydown", "focus", "wheel"];
  for (const sign of signs) window.addEventListener(sign, woken, { passive: true });
  document.addEventListener("visibilitychange", turn);
  // Scrolled out of sight within a conversation, it is not looked at either.
  const sight = new IntersectionObserver((seen) => {
    onScreen = seen.at(-1)?.isIntersecting ?? true;
    turn();
  });
  sight.observe(document.documentElement);
  turn();
  return () => {
    sight.disconnect();
    onScreen = true;
    clearInterval(tick);
    for (const sign of signs) window.removeEventListener(sign, woken);
    document.removeEventListener("visibilitychange", turn);
    entries.clear();
    recent = [];
    running = 0;
    ahead = 0;
    shared.value = [];
    host = undefined;
  };
}

function touched(): void {
  lastTouch = Date.now();
  asleep.value = false;
}

/** Reads what is due: first what is wanted freshest, so that a long list of pods does not keep the list itself waiting. */
function turn(): void {
  if (
    host === undefined ||
    muted.value ||
    ended.value !== undefined ||
    document.visibilityState === "hidden" ||
    !onScreen
  )
    return;
  const at = Date.now();
  if (at - lastTouch > ASLEEP_AFTER_MS[host.kind]) asleep.value = true;
  recent = recent.filter((then) => at - then < 60_000);
  const due = [...entries.values()]
    .filter((entry) => entry.lookers.size > 0 && entry.inFlight === undefined && entry.dueAt <= at)
    .filter((entry) => !asleep.value || isNew(entry))
    .sort((a, b) => compare(everyOf(a), everyOf(b)) || a.dueAt - b.dueAt);
  for (const entry of due) {
    if (running >= AT_ONCE) return;
    if (recent.length >= CALLS_PER_MINUTE && !isNew(entry) && !entry.isOutdated) continue;
    void read(entry);
  }
}

/** What was never asked for is what somebody has just opened. */
function isNew({ state, failures }: Entry): boolean {
  return state.value.at === undefined && failures === 0;
}

function read(entry: Entry): Promise<void> {
  if (entry.inFlight !== undefined) return entry.inFlight;
  if (host === undefined) return Promise.resolve();
  const { tool, args = {} } = entry.spec;
  recent.push(Date.now());
  running += 1;
  entry.wasAsked = true;
  entry.isOutdated = false;
  entry.state.value = { ...entry.state.value, loading: true };
  entry.inFlight = Promise.race([ask(host, tool, args), late()])
    .then((answer) => take(entry, answer))
    .finally(() => {
      running -= 1;
      entry.inFlight = undefined;
      turn();
    });
  return entry.inFlight;
}

async function ask(through: Host, tool: string, args: Json): Promise<Answer> {
  if (!tool.includes("://")) return through.call(tool, args);
  const data = await through.read(tool);
  return data === undefined ? trouble("not_offered", "It cannot be read here.") : { ok: true, data };
}

function late(): Promise<Answer> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(trouble("no_answer", "No answer came within a minute.")), LONGEST_READING_MS);
  });
}

function take(entry: Entry, given: Answer): void {
  const at = Date.now();
  here.value = at;
  const answer = readable(entry.spec.tool, entry.spec.args ?? {}, given);
  if (answer.ok) {
    const said = moment(answer.data.now);
    if (said !== undefined) {
      ahead = said - at;
      now.value = said;
    }
    entry.failures = 0;
    entry.state.value = { data: answer.data, at, failure: undefined, loading: false };
  } else {
    entry.failures += 1;
    const { data, failure: before } = entry.state.value;
    // Why the tool failed says more than that nobody could ask it again.
    const isKept = data === undefined && before !== undefined && NOT_ASKED.has(answer.code);
    const failure = isKept ? before : { code: answer.code, message: ofReading(answer.message) };
    entry.state.value = { ...entry.state.value, failure, loading: false };
  }
  const every = everyOf(entry);
  const wait = answer.ok
    ? every
    : LASTING.has(answer.code)
      ? SLOWEST_SECONDS
      : Math.min(SLOWEST_SECONDS, Math.max(10, Number.isFinite(every) ? every : 30) * 2 ** (entry.failures - 1));
  const isSettling = at < entry.settlesUntil && Number.isFinite(every);
  entry.dueAt = at + (isSettling ? Math.min(wait, UNSETTLED_EVERY_SECONDS) : wait) * 1000;
  entry.isOutdated ||= isSettling;
  judge();
}

function everyOf(entry: Entry): number {
  return Math.min(...entry.lookers.values(), Number.POSITIVE_INFINITY);
}

function compare(a: number, b: number): number {
  return a === b ? 0 : a - b;
}
