import { expect, test } from "vitest";
import { forPeople, ofReading } from "../src/data/people";

test.each([
  ["Lium does not take this key. Have the user make a new key.", "Lium does not take this key."],
  ["It is at work. Nothing was changed. Wait, or call again in a minute.", "It is at work. Nothing was changed."],
  ["Do not rent again. Call list_pods, which settles it.", "Do not rent again."],
  [
    "The price rose to $0.565. Nothing was rented: max_usd_per_hour=0.377 does not allow it.",
    "The price rose to $0.565. Nothing was rented: the price of $0.377 an hour that was agreed to does not allow it.",
  ],
  ["budget_usd would be passed: total_usd is 62.", "the budget would be passed: the total is 62."],
  ["Pod my_pod_name is not there.", "Pod my_pod_name is not there."],
  ["Call list_pods again.", "Call list_pods again."],
])("%s", (said, words) => expect(forPeople(said)).toBe(words));

test("of a reading nobody thinks that it changed something", () => {
  expect(
    ofReading("Lium answered 500. Nothing was changed. Wait; look at it before repeating a change. Call again."),
  ).toBe("Lium answered 500.");
  expect(ofReading("Nothing was changed.")).toBe("Nothing was changed.");
});
