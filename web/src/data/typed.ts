// Numbers as people type them. Some write the point of a fraction as a comma, and some part thousands by either mark.
import { number } from "./shapes";

/** 1,000 and 1.000 are a thousand to some and one to others: neither is guessed. */
const TWOFOLD = /^([1-9]\d{0,2})[.,](\d{3})$/;

/** A number above zero; undefined where it is none, or may be two. */
export function above(typed: string): number | undefined {
  const value = typed.trim();
  if (TWOFOLD.test(value)) return undefined;
  const read = number(value.replace(",", "."));
  return read !== undefined && read > 0 ? read : undefined;
}

/** What to write in place of a number that may be two; undefined where it is one. */
export function inTwoWays(typed: string): string | undefined {
  const found = TWOFOLD.exec(typed.trim());
  if (found === null) return undefined;
  const [, whole = "", rest = ""] = found;
  return `${typed.trim()} can be read in two ways: write ${whole}${rest} or ${Number(`${whole}.${rest}`)}.`;
}
