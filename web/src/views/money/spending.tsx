// What was spent: by day, cut into pods, and by pod.
import { useMemo } from "preact/hooks";
import { now, refresh, useReading } from "../../data/readings";
import { type Json, text } from "../../data/shapes";
import { clock, fullTime, hours, plural, UNKNOWN, usd } from "../../format";
import { muted } from "../../host/host";
import { Bars } from "../../ui/bars";
import { Chips } from "../../ui/field";
import { Pager, usePages } from "../../ui/pager";
import { Badge, Empty, Meter, Panel, Read, Unread } from "../../ui/parts";
import { type Column, Table } from "../../ui/table";
import {
  type Charges,
  chargesOf,
  PODS_A_PAGE,
  type PodCharge,
  partsOf,
  spendingSpec,
  spentDays,
  unfitUsd,
} from "./money_readings";

const PERIODS = [
  [7, "7 days"],
  [14, "14 days"],
  [30, "30 days"],
] as const;
/** So many parts of a bar can be told apart by their colours. */
const MOST_PARTS = 5;

export function Spending() {
  const days = spentDays.value;
  const setDays = (value: number): void => {
    spentDays.value = value;
  };
  const pages = usePages(String(days));
  const first = useReading(spendingSpec(days, ""));
  const state = useReading(spendingSpec(days, pages.cursor));
  const charges = useMemo(
    () => (state.data === undefined ? undefined : chargesOf(state.data, days)),
    [state.data, days],
  );
  return (
    <>
      <Panel
        title="Spent by day"
        note={
          charges?.totalUsd === undefined
            ? undefined
            : `${usd(charges.totalUsd)} ${charges.otherPeriod === undefined ? `in ${days} days` : `from ${charges.otherPeriod}`} (UTC)`
        }
        side={!muted.value && <Chips label="Spending of" value={days} onValue={setDays} choices={PERIODS} />}
        of={[first]}
      >
        <Read state={first} label="spending by day" rows={5} again={() => void refresh("get_spending")}>
          {(data) => <ByDay data={data} asked={days} />}
        </Read>
      </Panel>
      <Panel title="Spent by pod" flush note={`in ${days} days, the dearest first`} of={[state]}>
        <Read
          state={state}
          label="spending"
          rows={4}
          quiet={pages.page === 0}
          again={() => void refresh("get_spending")}
        >
          {(data) => <ByPod data={data} days={days} />}
        </Read>
        {charges !== undefined && !muted.value && (
          <Pager
            label="pods"
            pages={pages}
            shown={charges.pods.length}
            pageSize={PODS_A_PAGE}
            total={charges.podCount}
            nextCursor={charges.nextCursor}
          />
        )}
      </Panel>
    </>
  );
}

function ByDay({ data, asked }: { data: Json; asked: number }) {
  const charges = useMemo(() => chargesOf(data, asked), [data, asked]);
  const parts = useMemo(() => partsOf(charges, MOST_PARTS), [charges]);
  const bars = useMemo(
    () => (charges.period ?? []).map((day) => ({ short: dayInWords(day, false), full: dayInWords(day, true) })),
    [charges],
  );
  if (parts === undefined)
    return (
      <>
        <p class="quiet">What each day cost is not told.</p>
        {charges.incomplete !== undefined && <p class="small warn-text foreign">{charges.incomplete}</p>}
      </>
    );
  const misfits = misfitsOf(charges, asked);
  const hasRefunds = parts.some(({ values }) => values.some((usd) => usd < 0));
  return (
    <>
      {misfits.map((said) => (
        <p key={said} class="small warn-text foreign">
          {said}
        </p>
      ))}
      {parts.length === 0 && misfits.length > 0 ? null : parts.length === 0 ? (
        <p class="quiet">{charges.incomplete ?? "Nothing was charged in these days."}</p>
      ) : (
        <Bars label={`Spending by day over ${plural(bars.length, "day")}`} bars={bars} parts={parts} value={usd} />
      )}
      <ul class="said small quiet">
        {parts.length > 0 && charges.incomplete !== undefined && <li class="foreign">{charges.incomplete}</li>}
        {hasRefunds && <li>Below zero is what was given back.</li>}
        {charges.beyondUsd !== undefined && <li>{beyond(charges.beyondUsd)}</li>}
      </ul>
    </>
  );
}

function beyond(beyondUsd: number | null): string {
  if (beyondUsd === null) return "More was charged for no pod: how much cannot be read.";
  return beyondUsd < 0
    ? `${usd(-beyondUsd)} was given back for no pod: on which days is not told.`
    : `${usd(beyondUsd)} more was charged for no pod: on which days is not told.`;
}

const MOST_NAMED = 3;

/** What of the answer is not of the days that were asked for, or cannot be read. */
function misfitsOf(charges: Charges, asked: number): readonly string[] {
  const { otherPeriod, daysElsewhere, unreadDays, days, totalUsd } = charges;
  const unfit = unfitUsd(charges);
  const elsewhere = daysElsewhere.reduce((sum, day) => sum + (days?.get(day) ?? 0), 0);
  const named = daysElsewhere.slice(0, MOST_NAMED).join(", ");
  return [
    ...(otherPeriod === undefined ? [] : [`The answer is of ${otherPeriod}, and not of the last ${asked} days.`]),
    ...(daysElsewhere.length === 0
      ? []
      : [
          `It tells ${usd(elsewhere)} on ${plural(daysElsewhere.length, "day")} outside of the last ${asked} days (${named}${daysElsewhere.length > MOST_NAMED ? ", …" : ""}): not drawn.`,
        ]),
    ...(unfit === undefined ? [] : [`The days add up to ${usd(unfit)}, and Lium's own total is ${usd(totalUsd)}.`]),
    ...(unreadDays === 0 ? [] : [`${plural(unreadDays, "day")} could not be read: what is drawn is at least so much.`]),
  ];
}

/** A UTC day as people write it. */
function dayInWords(day: string, full: boolean): string {
  const at = new Date(`${day}T00:00:00Z`);
  return at.toLocaleDateString("en", {
    timeZone: "UTC",
    ...(full ? { weekday: "short", day: "numeric", month: "short" } : { day: "numeric", month: "short" }),
  });
}

function ByPod({ data, days }: { data: Json; days: number }) {
  const charges = useMemo(() => chargesOf(data, days), [data, days]);
  const most = Math.max(...charges.pods.map((pod) => pod.totalUsd ?? 0), 0);
  const whole = charges.podCount === undefined || charges.podCount <= charges.pods.length;
  const columns = useMemo(() => columnsOf(most).map((each) => (whole ? each : unsorted(each))), [most, whole]);
  return (
    <>
      <Unread rows={charges.unreadPods} flush />
      {charges.pods.length === 0 && charges.unreadPods > 0 ? null : charges.pods.length === 0 ? (
        <Empty title={`No pod was charged in ${days} days`} icon="box" />
      ) : (
        <Table label="spending by pod" rows={charges.pods} columns={columns} keyOf={(pod) => pod.key} />
      )}
      <p class="foot quiet small">
        <span class="foreign">{text(charges.note)}</span>
      </p>
    </>
  );
}

/** Of several pages only one is here: what would be sorted is not all. */
function unsorted<Row>({ by: _, ...column }: Column<Row>): Column<Row> {
  return column;
}

/** A GPU by the name that people use, with its count: 1× RTX 4090. */
function shortly(gpu: string | undefined): string | undefined {
  return gpu
    ?.slice(0, 200)
    .replace(/^([\d?]+)x /, "$1× ")
    .replace(/\bNVIDIA (GeForce )?/, "");
}

function columnsOf(most: number): readonly Column<PodCharge>[] {
  return [
    {
      id: "pod",
      title: "Pod",
      card: "heading",
      by: (pod) => pod.name ?? pod.key,
      cell: (pod) => (
        <bdi class="clip strong" title={pod.name ?? pod.key}>
          {pod.name ?? pod.key}
        </bdi>
      ),
    },
    {
      id: "state",
      title: "State",
      card: "bare",
      cell: (pod) =>
        pod.running ? (
          <Badge tone="good">
            <span class="dot" />
            Running
          </Badge>
        ) : (
          <span class="quiet">{pod.removedAt === undefined ? UNKNOWN : "Removed"}</span>
        ),
    },
    {
      id: "gpu",
      title: "GPU",
      cell: (pod) => (
        <bdi class="clip" title={pod.gpu}>
          {shortly(pod.gpu) ?? UNKNOWN}
        </bdi>
      ),
    },
    {
      id: "began",
      title: "Began",
      from: "middle",
      by: (pod) => pod.createdAt ?? undefined,
      cell: (pod) => <span title={fullTime(pod.createdAt)}>{clock(pod.createdAt, now.value)}</span>,
    },
    {
      id: "ended",
      title: "Ended",
      from: "middle",
      by: (pod) => pod.removedAt ?? undefined,
      cell: (pod) => <span title={fullTime(pod.removedAt)}>{clock(pod.removedAt, now.value)}</span>,
    },
    { id: "hours", title: "Billed", end: true, by: (pod) => pod.hours, cell: (pod) => hours(pod.hours) },
    {
      id: "share",
      title: "Share",
      silent: true,
      from: "wide",
      cell: (pod) =>
        pod.totalUsd !== undefined && (
          <Meter
            share={most > 0 ? pod.totalUsd / most : 0}
            label={`${usd(pod.totalUsd)}, the dearest is ${usd(most)}`}
          />
        ),
    },
    { id: "cost", title: "Charged", end: true, by: (pod) => pod.totalUsd, cell: (pod) => usd(pod.totalUsd) },
  ];
}
