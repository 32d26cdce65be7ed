// The Money view: what is left and how long it lasts, what was spent, and the limits.
import { useMemo } from "preact/hooks";
import { type Limit, limitsOf, overshoot } from "../../data/limits";
import { now, refresh, type State, useReading } from "../../data/readings";
import { type Json, number, texts, unreadRows } from "../../data/shapes";
import { clock, fullTime, hours, plural, price, span, UNKNOWN, usd } from "../../format";
import { type Series, TimeChart } from "../../ui/chart";
import { Figure, Figures, isEmptyAs, lacksKey, NoKey, Panel, Read, type Tone } from "../../ui/parts";
import { Burning } from "../burning";
import { BALANCE, PODS, podsOf, untoldPods } from "../pods/pod_readings";
import { aligned, type Forecast, forecast } from "./forecast";
import { Limits } from "./limits";
import { chargesOf, spendingSpec, spentDays } from "./money_readings";
import { Rents } from "./rents";
import { Spending } from "./spending";

/** A curve that moved each second would be no easier to read. */
const DRAWN_EVERY_MS = 60_000;

export function MoneyView() {
  const balance = useReading(BALANCE);
  const pods = useReading(PODS);
  const spent = useReading(spendingSpec(spentDays.value, ""));
  const minute = Math.floor(now.value / DRAWN_EVERY_MS) * DRAWN_EVERY_MS;
  const ahead = useMemo(() => {
    const left = number(balance.data?.balance_usd);
    if (left === undefined || pods.data === undefined) return undefined;
    return forecast(left, podsOf(pods.data), minute);
  }, [balance.data, pods.data, minute]);
  // Once is enough to say it.
  const keyless = [balance, pods].find(lacksKey);
  if (keyless !== undefined) return <NoKey failure={keyless.failure} />;
  return (
    <div class="view">
      <Summary balance={balance} pods={pods} spent={spent} ahead={ahead} />
      {!isEmptyAs([balance]) && (
        <div class="sides">
          <Ahead balance={balance} pods={pods} ahead={ahead} />
          <Panel title="Limits" note="of this server">
            <Read state={balance} label="limits" rows={4} quiet again={() => void refresh("get_balance")}>
              {(data) => <Limits data={data} />}
            </Read>
          </Panel>
        </div>
      )}
      <Spending />
      <Rents />
    </div>
  );
}

function Summary(props: { balance: State; pods: State; spent: State; ahead: Forecast | undefined }) {
  const { balance, pods, spent, ahead } = props;
  const charges = spent.data === undefined ? undefined : chargesOf(spent.data, spentDays.value);
  const today = charges?.todayUsd;
  const data = balance.data;
  const budget = limitsOf(data).find(({ name }) => name === "budget_usd");
  const end = ending(data, ahead, untoldPods(pods.data));
  return (
    <Figures of={[balance, pods, spent]}>
      <Figure
        label="Balance"
        value={usd(number(data?.balance_usd))}
        note={data === undefined ? "" : ofPods(data)}
        of={[balance]}
      />
      <Burning from={[balance, pods]} />
      <Figure
        label={end.label}
        value={end.value}
        note={end.note}
        tone={end.soon ? "warn" : "plain"}
        of={[balance, pods]}
      />
      <Figure
        label="Spent today"
        value={usd(today)}
        note={charges === undefined ? "" : today === undefined ? "not told" : "UTC, some minutes late"}
        of={[spent]}
      />
      {budget !== undefined && (
        <Figure {...ofBudget(budget, texts(data?.pods_without_removal_time).length)} of={[balance]} />
      )}
    </Figures>
  );
}

function ofBudget(budget: Limit, unbounded: number): { label: string; value: string; note: string; tone?: Tone } {
  const { allowed, used, left } = budget;
  const over = overshoot(budget);
  if (over !== undefined)
    return {
      label: "Over the budget",
      value: usd(over),
      note: `${usd(used ?? undefined)} used of ${usd(allowed)}`,
      tone: "warn",
    };
  const note =
    left === undefined && unbounded > 0
      ? `not bounded: ${plural(unbounded, "pod")} without a removal time`
      : allowed === undefined
        ? ""
        : `of ${usd(allowed)}`;
  return { label: "Left of the budget", value: usd(left), note };
}

function ofPods(data: Json): string {
  const billing = number(data.billing_pods);
  if (billing === undefined) return "";
  return billing === 0 ? "nothing bills" : `${plural(billing, "pod")} ${billing === 1 ? "bills" : "bill"}`;
}

const SOON_MS = 6 * 3_600_000;

interface Ending {
  readonly label: string;
  readonly value: string;
  readonly note: string;
  readonly soon: boolean;
}

/** When the balance ends, or what is left of it in the end. */
function ending(data: Json | undefined, ahead: Forecast | undefined, untold: number): Ending {
  const lasts = { label: "Lasts", value: UNKNOWN, note: "", soon: false };
  if (ahead === undefined) {
    const runway = number(data?.runway_hours);
    return runway === undefined
      ? lasts
      : { ...lasts, value: hours(runway), note: "if all pods run on", soon: runway < 6 };
  }
  const unpriced = ahead.unpriced + untold > 0;
  if (ahead.balanceUsd <= 0)
    return {
      ...lasts,
      value: "Nothing left",
      note: ahead.burnUsd > 0 ? `falls by ${unpriced ? "at least " : ""}${price(ahead.burnUsd)} an hour` : "",
      soon: true,
    };
  if (ahead.endsAt !== undefined)
    return {
      ...lasts,
      value: span((ahead.endsAt - now.value) / 1000),
      note: unpriced ? "at most: not all is priced" : `until ${clock(ahead.endsAt, now.value)}${ifAllRunOn(ahead)}`,
      soon: ahead.endsAt - now.value < SOON_MS,
    };
  if (unpriced) return { ...lasts, note: ahead.unpriced > 0 ? "a price is not known" : "not all pods were read" };
  if (ahead.burnUsd === 0) return { ...lasts, value: "No end", note: "nothing burns it" };
  return {
    label: "Left in the end",
    value: usd(ahead.leftUsd),
    note: `after all removals, ${clock(ahead.lastRemovalAt, now.value)}${ifAllRunOn(ahead)}`,
    soon: false,
  };
}

/** How long it lasts without the removals, where some are set. */
function ifAllRunOn({ runningOn, runsOutAt }: Forecast): string {
  if (runningOn === undefined || runsOutAt === undefined) return "";
  return `; ${span((runsOutAt - now.value) / 1000)} if all run on`;
}

function Ahead({ balance, pods, ahead }: { balance: State; pods: State; ahead: Forecast | undefined }) {
  const series = useMemo((): readonly Series[] => {
    if (ahead === undefined || ahead.withRemovals.length < 2) return [];
    const lines = aligned([ahead.withRemovals, ...(ahead.runningOn === undefined ? [] : [ahead.runningOn])]);
    const [first, second] = lines;
    return [
      {
        label: ahead.runningOn === undefined ? "Balance" : "With the removals that are set",
        points: first ?? [],
        filled: true,
      },
      ...(second === undefined
        ? []
        : [{ label: "If all pods ran on", points: second, dashed: true, tone: "plain" as const }]),
    ];
  }, [ahead]);
  return (
    <Panel title="Balance from now on" note="if nothing else is rented, added or removed">
      <Read state={balance} label="the balance" rows={5} again={() => void refresh("get_balance")}>
        {(data) => (
          <Read state={pods} label="pods" rows={5} again={() => void refresh("list_pods")}>
            {(listed) => (
              <>
                {ahead === undefined ? (
                  <p class="quiet">Lium does not say the balance, so nothing can be foreseen.</p>
                ) : series.length === 0 ? (
                  <p class={ahead.balanceUsd <= 0 ? "warn-text" : "quiet"}>
                    {ahead.burnUsd > 0
                      ? falling(ahead, untoldPods(listed))
                      : untoldPods(listed) > 0
                        ? "Not all pods could be read, so nothing can be foreseen."
                        : ahead.unpriced > 0
                          ? "No pod that bills has a known price, so nothing can be foreseen."
                          : `Nothing burns it: it stays at ${usd(number(data.balance_usd))}.`}
                  </p>
                ) : (
                  <TimeChart
                    label="The balance from now on"
                    series={series}
                    value={usd}
                    time={(x) => clock(x, now.value)}
                    height={210}
                  />
                )}
                <Said data={data} listed={listed} ahead={ahead} />
              </>
            )}
          </Read>
        )}
      </Read>
    </Panel>
  );
}

/** Of a balance that is used up while pods still burn. */
function falling({ balanceUsd, burnUsd, unpriced }: Forecast, untold: number): string {
  const by = `${unpriced + untold > 0 ? "at least " : ""}${price(burnUsd)} an hour`;
  return balanceUsd < 0
    ? `It is below zero, at ${usd(balanceUsd)}, and falling by ${by}.`
    : `It is at ${usd(balanceUsd)}, and falling by ${by}.`;
}

/** What the curve says in words, and what it does not know. */
function Said({ data, listed, ahead }: { data: Json; listed: Json; ahead: Forecast | undefined }) {
  if (ahead === undefined) return null;
  const pods = podsOf(listed);
  const total = number(listed.total);
  const unread = unreadRows(listed.pods);
  const idle = pods.filter((pod) => pod.idleMinutes !== undefined).length;
  const unbounded = texts(data.pods_without_removal_time);
  const said: (string | undefined)[] = [
    ahead.balanceUsd <= 0 && ahead.burnUsd === 0 && ahead.unpriced === 0
      ? undefined
      : ahead.balanceUsd <= 0
        ? "Nothing is left. What Lium does now it does not say: expect that pods are removed."
        : ahead.endsAt !== undefined
          ? `Nothing is left at ${clock(ahead.endsAt, now.value)}. What Lium does then it does not say: expect that pods are removed.`
          : ahead.leftUsd !== undefined && ahead.lastRemovalAt !== undefined
            ? `The last pod is removed at ${clock(ahead.lastRemovalAt, now.value)}, with ${usd(ahead.leftUsd)} left.`
            : undefined,
    ahead.endless > 0
      ? `${plural(ahead.endless, "pod")} without a removal time: drawn as running on${unbounded.length > 0 ? ", and not bounded for the budget" : ""}.`
      : undefined,
    ahead.undated > 0
      ? `${plural(ahead.undated, "pod")} with a removal time that cannot be read: drawn as running on.`
      : undefined,
    ahead.unpriced > 0
      ? `${plural(ahead.unpriced, "pod")} without a known price: the balance goes faster than drawn.`
      : undefined,
    ahead.starting > 0 ? `${plural(ahead.starting, "pod")} starting: counted as if started now.` : undefined,
    idle > 0 ? `${plural(idle, "pod")} to be removed once idle: that may be sooner than drawn.` : undefined,
    unread > 0
      ? `${plural(unread, "row")} of the list of pods could not be read: the balance may go faster.`
      : undefined,
    total !== undefined && total > pods.length ? `Only ${pods.length} of ${total} pods were read.` : undefined,
    unbounded.length > 0 && ahead.endless === 0
      ? "The budget has to bear pods that no removal time bounds."
      : undefined,
    `It begins with the balance of ${clock(ahead.from, now.value)}, as no earlier one is told. Volumes and backups bill too, and are not in it.`,
  ];
  return (
    <ul class="said small quiet" title={fullTime(ahead.endsAt)}>
      {said.map((each, i) => each !== undefined && <li key={i}>{each}</li>)}
    </ul>
  );
}
