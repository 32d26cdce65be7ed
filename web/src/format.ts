// Figures, money and times as people read them. What is not told is a dash, and never a zero; what is told and cannot be
// read says so.
import type { Told } from "./data/shapes";

export const UNKNOWN = "–";
export const UNREADABLE = "cannot be read";

const LOCALE = "en";
/** From here on money is written short: $12.3M. */
const LARGE = 1e6;

const cents = new Intl.NumberFormat(LOCALE, { style: "currency", currency: "USD" });
const fine = new Intl.NumberFormat(LOCALE, {
  style: "currency",
  currency: "USD",
  minimumFractionDigits: 3,
  maximumFractionDigits: 3,
});
const large = new Intl.NumberFormat(LOCALE, {
  style: "currency",
  currency: "USD",
  notation: "compact",
  maximumFractionDigits: 1,
});
/** What three places would make zero of, to the first digits that are none. */
const tiny = new Intl.NumberFormat(LOCALE, { style: "currency", currency: "USD", maximumSignificantDigits: 2 });
const TINY = 0.0005;
const short = new Intl.NumberFormat(LOCALE, {
  style: "currency",
  currency: "USD",
  notation: "compact",
  minimumFractionDigits: 0,
  maximumFractionDigits: 2,
});
const whole = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 1 });

/** An amount: $12.34; below a dime to the tenth of a cent, so that a young pod does not cost nothing. */
export function usd(amount: number | undefined): string {
  if (amount === undefined) return UNKNOWN;
  if (Math.abs(amount) >= LARGE) return large.format(amount);
  if (isTiny(amount)) return tiny.format(amount);
  return amount !== 0 && Math.abs(amount) < 0.1 ? fine.format(amount) : cents.format(amount);
}

/** A price of one GPU or pod for an hour: always three places, so that a column lines up, unless these were zeros. */
export function price(perHour: number | undefined): string {
  if (perHour === undefined) return UNKNOWN;
  if (isTiny(perHour)) return tiny.format(perHour);
  return (Math.abs(perHour) >= LARGE ? large : fine).format(perHour);
}

function isTiny(amount: number): boolean {
  return amount !== 0 && Math.abs(amount) < TINY;
}

/** How the figures of a scale are written: in one way, and short, since they stand beside the chart: $500, $1K, $1.5K. */
export function onScale(ticks: readonly number[], value: (tick: number) => string): (tick: number) => string {
  const isLarge = Math.max(...ticks.map(Math.abs)) >= 1000;
  return (tick) => {
    if (isTiny(tick)) return `${tick < 0 ? "-" : ""}$${Math.abs(tick).toExponential(0)}`;
    return isLarge && (tick === 0 || Math.abs(tick) >= 1) ? short.format(tick) : value(tick);
  };
}

const regions = new Intl.DisplayNames(LOCALE, { type: "region" });

/** A country by the name that people use, where it is told by its code. */
export function countryName(code: string | undefined): string | undefined {
  if (code === undefined || !/^[A-Za-z]{2}$/.test(code)) return code;
  return regions.of(code.toUpperCase());
}

export function count(value: number | undefined): string {
  return value === undefined ? UNKNOWN : whole.format(value);
}

export function percent(value: number | undefined): string {
  return value === undefined ? UNKNOWN : `${whole.format(value)}%`;
}

export function gb(value: number | undefined): string {
  if (value === undefined) return UNKNOWN;
  if (value >= 1000) return `${tenth.format(value / 1000)} TB`;
  if (value > 0 && value < 0.001) return "< 1 MB";
  return value > 0 && value < 1 ? `${whole.format(value * 1000)} MB` : `${tenth.format(value)} GB`;
}

/** A span of time in its two largest units: 2 d 4 h, 3 h 05 min, 4 min, 12 s. */
export function span(seconds: number | undefined): string {
  if (seconds === undefined || !Number.isFinite(seconds)) return UNKNOWN;
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  const minutes = Math.floor(s / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  const days = Math.floor(hours / 24);
  return days < 60 ? `${days} d ${hours % 24} h` : `${whole.format(days)} d`;
}

/** A length of time that was given in hours: 3 h, 1 h 30 min. */
export function hours(value: Told<number>): string {
  if (value === null) return UNREADABLE;
  return span(value === undefined ? undefined : value * 3600).replace(/( h) 00 min$|( d) 0 h$/, "$1$2");
}

/** How long ago, in one unit. */
export function ago(at: Told<number>, now: number): string {
  if (at === undefined) return UNKNOWN;
  if (at === null) return UNREADABLE;
  const seconds = Math.max(0, (now - at) / 1000);
  if (seconds < 5) return "just now";
  if (seconds < 3600) return `${span(seconds)} ago`;
  return seconds < 86_400 ? `${Math.floor(seconds / 3600)} h ago` : `${count(Math.floor(seconds / 86_400))} d ago`;
}

/** A moment on the clock of who reads: today the time alone, else with its day, and its year where that is not this one. */
export function clock(at: Told<number>, now: number): string {
  if (at === undefined) return UNKNOWN;
  if (at === null) return UNREADABLE;
  const day = new Date(at);
  const time = day.toLocaleTimeString(LOCALE, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  if (day.toDateString() === new Date(now).toDateString()) return time;
  const near = Math.abs(at - now) < 6 * 86_400_000;
  const date = near
    ? day.toLocaleDateString(LOCALE, { weekday: "short" })
    : day.toLocaleDateString(LOCALE, {
        day: "numeric",
        month: "short",
        ...(day.getFullYear() === new Date(now).getFullYear() ? {} : { year: "numeric" }),
      });
  return `${date} ${time}`;
}

/** The same as a part of a sentence: until Mon 16:05. */
export function until(at: Told<number>, now: number): string {
  return at === null ? "until a time that cannot be read" : `until ${clock(at, now)}`;
}

/** A moment in full, with its zone, as a title. */
export function fullTime(at: Told<number>): string {
  if (at === undefined || at === null) return "";
  return new Date(at).toLocaleString(LOCALE, { dateStyle: "full", timeStyle: "long", hourCycle: "h23" });
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** REBOOT_PENDING as people write it. */
export function sentence(status: string | undefined): string | undefined {
  const words = status?.slice(0, 24).replaceAll("_", " ").toLowerCase();
  return words === undefined ? undefined : words.charAt(0).toUpperCase() + words.slice(1);
}
