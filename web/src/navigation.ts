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

export function show(next: View): void {
  view.value = next;
  if (window.parent === window) history.replaceState(null, "", `#${next}`);
}

/** The view that the address names, so that a page loaded again shows the same. */
export function restoreView(): void {
  const named = VIEWS.find((name) => location.hash === `#${name}`);
  if (named !== undefined) view.value = named;
}
