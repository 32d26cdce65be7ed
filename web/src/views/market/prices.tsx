// Prices per GPU type: what is free, what it costs, and whether that is cheap.
import { scaleLog } from "d3-scale";
import { useMemo, useRef, useState } from "preact/hooks";
import { ofReading } from "../../data/people";
import { isSaidAbove, now, refresh, useReading } from "../../data/readings";
import { type Json, number, text, texts, told, unreadRows } from "../../data/shapes";
import { ago, clock, count, fullTime, gb, plural, price, UNKNOWN, usd } from "../../format";
import { muted } from "../../host/host";
import { type Series, Spark, TimeChart } from "../../ui/chart";
import { Chips } from "../../ui/field";
import { Badge, Button, Empty, Incomplete, isEmptyAs, Panel, Read, Unread } from "../../ui/parts";
import { type Mark, Scatter } from "../../ui/scatter";
import { Spread } from "../../ui/spread";
import { type Column, Table } from "../../ui/table";
import { useWidth } from "../../ui/width";
import { GoneTypes } from "./gone";
import {
  againstUsual,
  type GpuType,
  type History,
  historiesOf,
  historySpec,
  type Lowest,
  NARROW_PX,
  PRICES,
  typesOf,
  usualOf,
  wanted,
} from "./market_readings";

const DAYS = [
  [1, "Day"],
  [7, "Week"],
  [30, "Month"],
] as const;
const IN_WORDS: Readonly<Record<number, string>> = { 1: "the last day", 7: "the last week", 30: "the last month" };
/** Nearer to what is usual than this is usual. */
const USUAL = 0.03;
/** So many types, the cheapest, until somebody wants all; fewer where each is a card. */
const FIRST_SHOWN = 8;
const FIRST_CARDS = 4;

export function Prices() {
  const [days, setDays] = useState<number>(7);
  const state = useReading(PRICES);
  const past = useReading(historySpec(days));
  const histories = useMemo(() => historiesOf(past.data), [past.data]);
  const missing =
    state.data === undefined
      ? []
      : [...texts(past.data?.warnings).map(ofReading), isSaidAbove(past) ? [] : (past.failure?.message ?? [])].flat();
  if (isEmptyAs([state])) return null;
  return (
    <div class={state.data === undefined ? "view" : "sides"}>
      <Panel
        title="Prices"
        flush
        note={<Aged data={state.data} />}
        side={!muted.value && <Chips label="Prices of" value={days} onValue={setDays} choices={DAYS} />}
      >
        {missing.map((said) => (
          <p key={said} class="aside foreign small">
            {said}
          </p>
        ))}
        <Read state={state} label="prices" rows={6} again={() => void refresh("get_gpu_prices")}>
          {(data) => <Types data={data} histories={histories} past={past.data !== undefined} days={days} />}
        </Read>
      </Panel>
      {state.data !== undefined && (
        <Panel title="Price against memory" note="of one GPU, logarithmic">
          <AgainstMemory data={state.data} />
        </Panel>
      )}
    </div>
  );
}

/** Which type gives most memory for the money: low and to the right is cheap and large. */
function AgainstMemory({ data }: { data: Json }) {
  const types = useMemo(() => typesOf(data), [data]);
  const marks = useMemo(
    () =>
      types.flatMap(({ name, vramGb, minUsd, medianUsd }): Mark[] =>
        name === undefined || vramGb === undefined || minUsd === undefined
          ? []
          : [{ name, x: vramGb, y: minUsd, upTo: medianUsd }],
      ),
    [types],
  );
  const missing = types.length - marks.length;
  return (
    <>
      <Scatter
        label="GPU types by memory and lowest price"
        marks={marks}
        xTitle="Memory of a GPU, GB"
        x={String}
        y={usd}
        said={({ name, x, y, upTo }) =>
          `${name}: ${gb(x)} from ${price(y)}, median ${price(upTo)}; ${price(y / x)} for a GB`
        }
        onChoose={({ name }) => showOffers(name)}
      />
      {(missing > 0 || marks.length === 0) && (
        <p class="small quiet">
          {marks.length === 0
            ? "No type tells both."
            : `${plural(missing, "type")} not drawn: memory or price is not told.`}
        </p>
      )}
    </>
  );
}

function Aged({ data }: { data: Json | undefined }) {
  const seconds = told(data?.read_seconds_ago, number);
  const isOld = seconds === null || (seconds ?? 0) >= 60;
  const when = seconds === null ? "at a time that cannot be read" : ago(now.value - (seconds ?? 0) * 1000, now.value);
  return <>per GPU and hour{isOld && `, read ${when}`}</>;
}

function Types(props: { data: Json; histories: ReadonlyMap<string, History>; past: boolean; days: number }) {
  const { data, histories, past, days } = props;
  const types = useMemo(() => typesOf(data), [data]);
  const [open, setOpen] = useState<string>();
  const [all, setAll] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box);
  const first = width > 0 && width <= NARROW_PX ? FIRST_CARDS : FIRST_SHOWN;
  const shown = useMemo(() => (all ? types : types.slice(0, first)), [types, all, first]);
  const columns = useMemo(() => columnsOf(shown, histories, past, days), [shown, histories, past, days]);
  const unread = unreadRows(data.gpu_types);
  const gone = <GoneTypes data={data} histories={histories} />;
  const incomplete = <Incomplete data={data} />;
  if (types.length === 0)
    return (
      <>
        {unread > 0 ? (
          <Unread rows={unread} flush />
        ) : (
          <Empty title="Nothing is for rent now" icon="box">
            {ofReading(text(data.next) ?? "") || "Lium lists no free GPU, or its list could not be read."}
          </Empty>
        )}
        {incomplete}
        {gone}
      </>
    );
  const since = types.flatMap((type) => type.seenSince ?? []);
  const begun = since.length === 0 ? undefined : Math.min(...since);
  return (
    <div ref={box}>
      <Unread rows={unread} flush />
      {incomplete}
      <Table
        label="prices"
        rows={shown}
        columns={columns}
        keyOf={(type) => type.key}
        nameOf={(type) => type.name ?? "GPUs without a name"}
        open={open}
        onOpen={setOpen}
        detail={(type) => <Detail type={type} history={histories.get(type.name ?? "")} days={days} />}
      />
      <p class="foot quiet small">
        {types.length > first && (
          <Button kind="link" onPress={() => setAll(!all)}>
            {all ? "Show the cheapest" : `Show all ${plural(types.length, "type")}`}
          </Button>
        )}
        <span>
          {begun === undefined
            ? "Too few earlier prices are known to say what is usual: this server keeps a sample every ten minutes while it is used."
            : `This server has kept a sample every ten minutes while it was used, since ${clock(begun, now.value)}.`}
        </span>
      </p>
      {gone}
    </div>
  );
}

function columnsOf(
  types: readonly GpuType[],
  histories: ReadonlyMap<string, History>,
  past: boolean,
  days: number,
): readonly Column<GpuType>[] {
  const known = types.flatMap(({ minUsd, maxUsd }) => [minUsd ?? [], maxUsd ?? []].flat());
  const least = Math.min(...known, 1);
  const scale = scaleLog([least * 0.9, Math.max(...known, least * 2) * 1.1], [0, 1]);
  return [
    {
      id: "type",
      title: "GPU",
      card: "heading",
      by: ({ name }) => name,
      cell: ({ name }) => <bdi class="clip strong">{name ?? "Not named"}</bdi>,
    },
    {
      id: "memory",
      title: "Memory",
      from: "middle",
      end: true,
      help: "Of one GPU, as it is sold",
      by: ({ vramGb }) => vramGb,
      cell: ({ vramGb }) => gb(vramGb),
    },
    {
      id: "usual",
      title: "Against usual",
      card: "bare",
      help: "The lowest price now, against the median of the lowest prices of the last week, or day",
      by: againstUsual,
      cell: (type) => <Usual type={type} />,
    },
    { id: "lowest", title: "From", end: true, by: ({ minUsd }) => minUsd, cell: ({ minUsd }) => price(minUsd) },
    {
      id: "median",
      title: "Median",
      end: true,
      by: ({ medianUsd }) => medianUsd,
      cell: ({ medianUsd }) => price(medianUsd),
    },
    {
      id: "spread",
      title: "Spread now",
      from: "wide",
      help: "The range, its middle half and its median, on one scale for all types, whose steps grow tenfold",
      cell: (type) => (
        <Spread
          five={{ least: type.minUsd, q1: type.q1Usd, median: type.medianUsd, q3: type.q3Usd, most: type.maxUsd }}
          scale={scale}
          label={`From ${price(type.minUsd)} to ${price(type.maxUsd)}, the middle half from ${price(type.q1Usd)} to ${price(type.q3Usd)}, median ${price(type.medianUsd)}`}
        />
      ),
    },
    {
      id: "past",
      title: days === 1 ? "Last day" : days === 7 ? "Last week" : "Last month",
      from: "middle",
      help: "The lowest price over that time",
      cell: (type) => {
        const lowest = histories.get(type.name ?? "")?.lowest;
        return lowest === undefined ? (
          <span class="quiet">{past ? "None kept" : UNKNOWN}</span>
        ) : (
          <Spark points={lowest} label={inWords(lowest, days)} width={84} />
        );
      },
    },
    {
      id: "free",
      title: "Free",
      end: true,
      help: "Free GPUs, as far as nodes say how many they have",
      by: ({ freeGpus }) => freeGpus,
      cell: ({ freeGpus, nodes }) => (
        <span title={nodes === undefined ? undefined : `on ${plural(nodes, "node")}`}>{count(freeGpus)}</span>
      ),
    },
  ];
}

/** What a small line shows, for who does not see it. */
function inWords(points: History["lowest"], days: number): string {
  const known = points.flatMap(({ y }) => y ?? []);
  if (known.length === 0) return "No price is known";
  return `Lowest price over ${IN_WORDS[days]}: between ${price(Math.min(...known))} and ${price(Math.max(...known))}, last ${price(known.at(-1))}`;
}

function Usual({ type }: { type: GpuType }) {
  const share = againstUsual(type);
  if (share === undefined) return <span class="quiet">{UNKNOWN}</span>;
  const percents = Math.round(Math.abs(share - 1) * 100);
  const than = <span class="quiet small">than {usualOf(type)}</span>;
  if (Math.abs(share - 1) < USUAL)
    return (
      <span class="usual">
        As usual <span class="quiet small">in {usualOf(type)}</span>
      </span>
    );
  return share < 1 ? (
    <span class="usual">
      <Badge tone="good">{percents}% cheaper</Badge> {than}
    </span>
  ) : (
    <span class="usual">
      <Badge tone={share > 1.15 ? "warn" : "plain"}>{percents > 999 ? "Far" : `${percents}%`} dearer</Badge> {than}
    </span>
  );
}

function Detail({ type, history, days }: { type: GpuType; history: History | undefined; days: number }) {
  const series = useMemo((): readonly Series[] => {
    if (history === undefined) return [];
    return [
      { label: "Lowest", points: history.lowest, filled: false },
      { label: "Median", points: history.median, tone: "plain" },
    ];
  }, [history]);
  return (
    <div class="type-detail">
      {history === undefined || history.lowest.length < 2 ? (
        <p class="quiet">
          {history === undefined
            ? `No price of ${IN_WORDS[days]} was kept of this type.`
            : "One price was kept so far: a line needs two."}
        </p>
      ) : (
        <TimeChart
          label={`Lowest and median price of ${type.name ?? "this type"} per GPU and hour over ${IN_WORDS[days]}`}
          series={series}
          value={price}
          time={(x) => clock(x, now.value)}
          height={180}
          fromZero={false}
        />
      )}
      <dl class="facts">
        <Fact name="Now" value={`${price(type.minUsd)} to ${price(type.maxUsd)}`} />
        <Fact name="Middle half" value={`${price(type.q1Usd)} to ${price(type.q3Usd)}`} />
        <Fact name="Last day" value={ofLowest(type.lastDay)} />
        <Fact
          name="Last week"
          value={
            type.lastWeek === undefined && type.lastDay !== undefined
              ? "no more than the last day"
              : ofLowest(type.lastWeek)
          }
        />
        <Fact
          name="Seen since"
          value={type.seenSince === undefined ? UNKNOWN : clock(type.seenSince, now.value)}
          title={fullTime(type.seenSince)}
        />
        <Fact
          name="Free"
          value={`${count(type.freeGpus)} GPUs${type.nodes === undefined ? "" : ` on ${plural(type.nodes, "node")}`}`}
        />
      </dl>
      {type.name !== undefined && !muted.value && (
        <Button icon="search" onPress={() => showOffers(type.name ?? "")}>
          Show its offers
        </Button>
      )}
    </div>
  );
}

function Fact({ name, value, title }: { name: string; value: string; title?: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd title={title}>{value}</dd>
    </div>
  );
}

function ofLowest(lowest: Lowest | undefined): string {
  if (lowest === undefined) return "too few samples";
  return `lowest from ${price(lowest.minUsd)} to ${price(lowest.maxUsd)}, usually ${price(lowest.medianUsd)} (${plural(lowest.samples ?? 0, "sample")})`;
}

function showOffers(gpuType: string): void {
  if (muted.value) return;
  wanted.value = { ...wanted.value, gpu_type: gpuType };
  document.getElementById("offers")?.scrollIntoView({ block: "start" });
}
