// Which view is shown, and which pod is open in it.
import { signal } from "@preact/signals";
import { ofReading } from "./data/people";
import { type Failure, type Spec, seed } from "./data/readings";
import { type Json, number, record, tableOf, text } from "./data/shapes";
import type { Opening } from "./host/host";
import { historySpec, offersSpec, PRICES, shownQuote, wanted, wantedOf } from "./views/market/market_readings";
import { chargesOf, spendingSpec, spentDays } from "./views/money/money_readings";
import { BALANCE, PODS, podSpec } from "./views/pods/pod_readings";

export const VIEWS = ["pods", "market", "money"] as const;
export type View = (typeof VIEWS)[number];

export const view = signal<View>("pods");
/** The id of the pod whose details are open. */
export const openPod = signal<string | undefined>(undefined);

const VIEW_OF = tableOf<View>({
  list_gpus: "market",
  get_gpu_prices: "market",
  quote_rental: "market",
  get_balance: "money",
  get_spending: "money",
  list_activity: "money",
});

/** Why the call failed that opened the page, where no reading of its view is about the same. */
export const failedOpening = signal<Failure | undefined>(undefined);

/** Shows what the tool is about whose call opened the page, and its answer as soon as it is there. */
export function open({ tool: named, args, answer }: Opening): void {
  const tool = named ?? (answer?.ok ? guess(answer.data) : undefined);
  if (tool === undefined) return;
  view.value = VIEW_OF.get(tool) ?? "pods";
  if (view.value === "market") wanted.value = wantedOf(args);
  if (answer === undefined) return;
  const data = answer.ok ? answer.data : {};
  if (tool === "quote_rental" && answer.ok) shownQuote.value = data;
  if (tool === "get_spending") spentDays.value = chargesOf(data).period?.length ?? spentDays.value;
  if (tool === "get_pod") openPod.value = text(record(data.pod).pod_id);
  const readings = readingsOf(tool, args);
  failedOpening.value =
    answer.ok || readings.length > 0 ? undefined : { code: answer.code, message: ofReading(answer.message) };
  // Pages of another length would not follow one another: of a part the whole is read as soon as the host lets it.
  const isPage = answer.ok && tool === "list_gpus" && (args.cursor !== undefined || data.next_cursor !== undefined);
  // So is what does not tell the days that the view shows.
  const isPart = isPage || (answer.ok && tool === "get_spending" && !Array.isArray(data.days));
  const shown = isPage ? { ok: true as const, data: { ...data, next_cursor: undefined } } : answer;
  for (const reading of readings) seed(reading, shown, isPart);
}

/**
 * The readings of its view that this is an answer for. What was asked for with other arguments is shown at once, and
 * read anew as the view wants it: the host may let the page call nothing.
 */
function readingsOf(tool: string, args: Json): readonly Spec[] {
  const past = number(args.history_days) ?? 0;
  if (tool === "list_pods") return [PODS];
  if (tool === "get_pod" && openPod.value !== undefined) return [podSpec(openPod.value, 0)];
  if (tool === "get_balance") return [BALANCE];
  if (tool === "get_spending") return [spendingSpec(spentDays.value, "")];
  if (tool === "get_gpu_prices") return [PRICES, ...(past > 0 ? [historySpec(past)] : [])];
  return tool === "list_gpus" ? [offersSpec(wanted.value, "")] : [];
}

/** What only the answer of one tool has; the first that is there counts. */
const TOLD_BY: Readonly<Record<string, string>> = {
  offers: "list_gpus",
  gpu_types: "get_gpu_prices",
  lines: "quote_rental",
  start_day: "get_spending",
  activities: "list_activity",
  balance_usd: "get_balance",
  pods: "list_pods",
  pod: "get_pod",
};

/** Hosts that do not name the tool: its answer tells. */
function guess(data: Json): string | undefined {
  return Object.entries(TOLD_BY).find(([field]) => field in data)?.[1];
}

/** Shows a view that a person chose: Back leads to the one before. In a host's frame history is the host's. */
export function show(next: View): void {
  if (next !== view.value && window.parent === window) history.pushState(null, "", `#${next}`);
  view.value = next;
  failedOpening.value = undefined;
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
