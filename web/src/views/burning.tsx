// What all pods burn together, as a figure: list_pods and get_balance both tell it, so that one stands in for the other.
import type { State } from "../data/readings";
import { type Json, number, told, unreadRows } from "../data/shapes";
import { plural, price, usd } from "../format";
import { Figure } from "../ui/parts";

/** The first of the readings that is fresh tells it, or else the first that told it once. */
export function Burning({ from }: { from: readonly State[] }) {
  const told = from.filter(({ data }) => number(data?.burn_per_hour_usd) !== undefined);
  const data = (told.find(({ failure }) => failure === undefined) ?? told[0])?.data;
  const burn = number(data?.burn_per_hour_usd);
  return (
    <Figure
      label="Burning"
      value={price(burn)}
      unit="/h"
      note={burn === undefined ? "" : noteOf(data, burn)}
      of={from.filter((state) => state.data === data)}
    />
  );
}

function noteOf(data: Json | undefined, burn: number): string {
  const [unpriced, unsure] = [told(data?.unpriced_pods, number), told(data?.unknown_billing_pods, number)];
  if (unpriced === null || unsure === null) return "at least: some pods may be unpriced";
  const left = [
    unpriced ? `${plural(unpriced, "pod")} unpriced` : [],
    unsure ? `${plural(unsure, "pod")} may bill` : [],
  ];
  if (left.flat().length > 0) return `at least: ${left.flat().join(", ")}`;
  const unread = unreadRows(data?.pods);
  return unread > 0 ? `at least: ${plural(unread, "pod")} not read` : `${usd(burn * 24)} a day`;
}
