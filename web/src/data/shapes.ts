// Reads answers of which nothing is known: a figure that is no number is absent, and never zero; a text stays a text.

export type Json = Readonly<Record<string, unknown>>;

/**
 * What a field tells where its absence says something: undefined that nothing stands there, null that something does
 * which cannot be read. That is unknown, and not none.
 */
export type Told<T> = T | null | undefined;

/** Reads a field so, by one of the readers below. */
export function told<T>(value: unknown, read: (value: unknown) => T | undefined): Told<T> {
  return value === undefined || value === null ? undefined : (read(value) ?? null);
}

/** Longer names and sentences are cut: nobody reads on, and they would push everything else away. */
const LONGEST_TEXT = 600;
/** Larger figures are none of ours, and would widen every table. */
const LARGEST_NUMBER = 1e15;

export function record(value: unknown): Json {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

export function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

export function records(value: unknown): readonly Json[] {
  return list(value)
    .filter((item) => typeof item === "object" && item !== null && !Array.isArray(item))
    .map(record);
}

/** How many rows of a list cannot be read: what is no record, or of which `knows` says that it tells nothing. */
export function unreadRows(value: unknown, knows: (row: Json) => boolean = () => true): number {
  const read = records(value);
  return list(value).length - read.filter(knows).length;
}

/** Whether something stands where a list should, and is none. */
export function isNoList(value: unknown): boolean {
  return value !== undefined && value !== null && !Array.isArray(value);
}

/** A finite number, also one that stands in a text, as Lium now and then sends it. */
export function number(value: unknown): number | undefined {
  if (typeof value === "string" && /^\s*-?\d+(\.\d+)?(e-?\d+)?\s*$/i.test(value)) return number(Number(value));
  return typeof value === "number" && Math.abs(value) <= LARGEST_NUMBER ? value : undefined;
}

/** A text of one line, without what would turn or hide what stands around it. */
export function text(value: unknown): string | undefined {
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (typeof value !== "string") return undefined;
  // First cut roughly, so that a huge text costs nothing; a character of two halves is not cut in two.
  const seen = withoutControls(value.slice(0, 4 * LONGEST_TEXT))
    .replaceAll(/\s+/g, " ")
    .trim();
  if (seen === "") return undefined;
  return seen.length <= LONGEST_TEXT ? seen : `${[...seen.slice(0, LONGEST_TEXT)].slice(0, -1).join("")}…`;
}

/** A text whose lines stay. */
export function lines(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? withoutControls(value) : undefined;
}

export function texts(value: unknown): readonly string[] {
  return list(value).flatMap((item) => text(item) ?? []);
}

/** What is known by name. Names from elsewhere may be those of what every object has. */
export function tableOf<T>(known: Readonly<Record<string, T>>): ReadonlyMap<string, T> {
  return new Map(Object.entries(known));
}

/** Gives each row a key of its own, by what names it: what should be one of a kind may not be. */
export function keyMaker(): (name: string | undefined) => string {
  const taken = new Set<string>();
  return (name = "row") => {
    let key = name;
    for (let n = 2; taken.has(key); n++) key = `${name} (${n})`;
    taken.add(key);
    return key;
  };
}

export function flag(value: unknown): boolean | undefined {
  return typeof value === "boolean" ? value : undefined;
}

/** As every answer of ours writes it; browsers read much else as some date. */
const MOMENT = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})$/i;

/** A moment, in milliseconds since 1970. */
export function moment(value: unknown): number | undefined {
  if (typeof value !== "string" || !MOMENT.test(value)) return undefined;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : at;
}

function withoutControls(value: string): string {
  // Controls but for line ends and tabs, and the marks that set the direction of all that follows.
  return value.replaceAll(/[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/gu, (mark) =>
    mark === "\n" || mark === "\t" ? mark : "",
  );
}
