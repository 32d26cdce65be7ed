import { describe, expect, test } from "vitest";
import { ago, clock, gb, hours, onScale, plural, price, span, usd } from "../src/format";

describe("figures as people read them", () => {
  test.each([
    [undefined, "–"],
    [0, "$0.00"],
    [0.0154, "$0.015"],
    [12.345, "$12.35"],
    [1234.5, "$1,234.50"],
    [-3, "-$3.00"],
    [0.00012, "$0.00012"],
    [-0.00012, "-$0.00012"],
  ])("%s dollars", (amount, words) => expect(usd(amount)).toBe(words));

  test("a price has three places", () => {
    expect(price(2)).toBe("$2.000");
    expect(price(undefined)).toBe("–");
  });

  test("nothing that is not zero is written as zero", () => {
    for (let power = -9; power < 0; power++) {
      expect(price(10 ** power)).toMatch(/[1-9]/);
      expect(usd(10 ** power)).toMatch(/[1-9]/);
      expect(onScale([10 ** power, 2], price)(10 ** power)).toMatch(/[1-9]/);
    }
    expect(price(0)).toBe("$0.000");
  });

  test("the figures of a scale are written in one way, and short", () => {
    const ticks = [0, 500_000, 1_000_000, 1_500_000];
    expect(ticks.map(onScale(ticks, usd))).toEqual(["$0", "$500K", "$1M", "$1.5M"]);
    expect([0, 50, 100].map(onScale([0, 50, 100], usd))).toEqual(["$0.00", "$50.00", "$100.00"]);
    expect([-500, 0, 2500].map(onScale([-500, 0, 2500], usd))).toEqual(["-$500", "$0", "$2.5K"]);
  });

  test.each([
    [4, "4 s"],
    [59.6, "1 min"],
    [3600, "1 h 00 min"],
    [3 * 3600 + 5 * 60, "3 h 05 min"],
    [26 * 3600, "1 d 2 h"],
    [-5, "0 s"],
    [Number.NaN, "–"],
  ])("%s seconds", (seconds, words) => expect(span(seconds)).toBe(words));

  test("hours, sizes, counts", () => {
    expect(hours(1.5)).toBe("1 h 30 min");
    expect(hours(3)).toBe("3 h");
    expect(hours(48)).toBe("2 d");
    expect(gb(0.004)).toBe("4 MB");
    expect(gb(79.647)).toBe("79.6 GB");
    expect(gb(11_637)).toBe("11.6 TB");
    expect(plural(1, "pod")).toBe("1 pod");
    expect(plural(5000, "offer")).toBe("5,000 offers");
  });

  test("a moment is near or far", () => {
    const now = new Date(2026, 10, 29, 12).getTime();
    expect(ago(now - 1000, now)).toBe("just now");
    expect(ago(now - 3 * 3600_000, now)).toBe("3 h ago");
    expect(clock(new Date(2026, 10, 29, 16, 5).getTime(), now)).toBe("16:05");
    expect(clock(new Date(2026, 10, 30, 4, 53).getTime(), now)).toBe("Mon 04:53");
    expect(clock(new Date(2026, 11, 20, 4, 53).getTime(), now)).toBe("Dec 20 04:53");
    expect(clock(new Date(9999, 11, 31, 23, 59).getTime(), now)).toBe("Dec 31, 9999 23:59");
    expect(clock(new Date(2027, 0, 1, 4, 53).getTime(), new Date(2026, 11, 31, 12).getTime())).toBe("Fri 04:53");
  });
});
