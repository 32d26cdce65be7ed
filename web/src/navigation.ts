// Which view is shown, and which pod is open in it.
import { signal } from "@preact/signals";
import { type Spec, seed } from "./data/readings";
import { type Json, list, record, text } from "./data/shapes";
import type { Opening } from "./host/host";
import { OFFERS_A_PAGE, offersSpec, shownQuote, wanted, wantedOf } from "./views/market/market_readings";
import { PODS } from "./views/pods/pod_readings";

export const VIEWS = ["pods", "market", "money"] as const;
export type View = (typeof VIEWS)[number];

export const view = signal<View>("pods");
/** The id of the pod whose details are open. */
export const openPod = signal<string | undefined>(undefined);

const VIEW_OF: Readonly<Record<string, View>> = {
  list_gpus: "market",
  get_gpu_prices: "market",
  quote_rental: "market",
  get_balance: "money",
  get_spending: "money",
  list_activity: "money",
};

/** Shows what the tool was about whose result opened the page. */
export function open({ tool, args, answer }: Opening): void {
  view.value = (tool === undefined ? undefined : VIEW_OF[tool]) ?? guess(answer.ok ? answer.data : {});
  if (view.value === "market") wanted.value = wantedOf(args);
  if (!answer.ok || tool === undefined) return;
  // A list that was asked for with other arguments is shown at once, and read anew as the view wants it.
  seed(specOf(tool, args, answer.data), answer);
  if (tool === "quote_rental") shownQuote.value = answer.data;
  if (tool === "get_pod") openPod.value = text(record(answer.data.pod).pod_id);
}

/** The reading that this is an answer for. */
function specOf(tool: string, args: Json, data: Json): Spec {
  if (tool === "list_pods") return PODS;
  // Whole lists alone: pages of another length would not follow one another.
  const isWhole = args.cursor === undefined && data.next_cursor === undefined;
  if (tool === "list_gpus" && isWhole && list(data.offers).length <= OFFERS_A_PAGE) return offersSpec(wanted.value, "");
  return { tool, args };
}

/** Hosts that do not name the tool: its answer tells. */
function guess(data: Readonly<Record<string, unknown>>): View {
  if ("offers" in data || "gpu_types" in data || "quote" in data) return "market";
  if ("balance_usd" in data || "start_day" in data || "activities" in data) return "money";
  return "pods";
}

/** Shows a view that a person chose: Back leads to the one before. In a host's frame history is the host's. */
export function show(next: View): void {
  if (next !== view.value && window.parent === window) history.pushState(null, "", `#${next}`);
  view.value = next;
}

/** The view that the address names: after Back and Forward, when it was changed by hand, and on a page loaded again. */
export function restoreView(): void {
  const named = location.hash === "" ? VIEWS[0] : VIEWS.find((name) => location.hash === `#${name}`);
  if (named !== undefined) view.value = named;
}

/** Lets the address name the view that is shown, where something else stood in it. */
export function nameView(): void {
  history.replaceState(null, "", view.value === VIEWS[0] ? location.pathname : `#${view.value}`);
}
