import { describe, expect, test } from "vitest";
import { flag, lines, list, moment, number, record, records, text, texts } from "../src/data/shapes";

describe("an answer of which nothing is known", () => {
  test.each([
    [null],
    [undefined],
    [""],
    ["twelve"],
    ["12 USD"],
    [Number.NaN],
    [Infinity],
    [1e308],
    [{}],
    [[3]],
    [true],
  ])("%j is no figure, and not zero", (value) => expect(number(value)).toBeUndefined());

  test.each([
    [0, 0],
    ["1.25", 1.25],
    [" 3 ", 3],
    ["-2e3", -2000],
  ])("%j is a figure", (value, read) => expect(number(value)).toBe(read));

  test("a text keeps its words, and loses what hides or turns others", () => {
    expect(text("<img src=x onerror=alert(1)>")).toBe("<img src=x onerror=alert(1)>");
    expect(text("pay\u202e04$\u0000")).toBe("pay04$");
    expect(text("  a\n b\t")).toBe("a b");
    expect(text("x".repeat(50_000))).toBe(`${"x".repeat(599)}…`);
    expect(text("💥".repeat(900))).toMatch(/^(💥)+…$/u);
    expect(text({})).toBeUndefined();
    expect(text("   ")).toBeUndefined();
    expect(text(12)).toBe("12");
    expect(lines("a\n\u001b[31mb")).toBe("a\n[31mb");
  });

  test("lists and records of something else are empty", () => {
    expect(list({ length: 3 })).toEqual([]);
    expect(record([1])).toEqual({});
    expect(record(null)).toEqual({});
    expect(records([1, null, { a: 1 }, [2]])).toEqual([{ a: 1 }]);
    expect(texts(["a", null, {}, "b"])).toEqual(["a", "b"]);
    expect(flag("true")).toBeUndefined();
    expect(moment("tomorrow")).toBeUndefined();
    expect(moment("2026-11-29T16:00:00Z")).toBe(Date.UTC(2026, 10, 29, 16));
  });
});
