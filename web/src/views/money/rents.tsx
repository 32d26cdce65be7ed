// What was rented through this server, as its ledger has it.
import { useMemo } from "preact/hooks";
import { forPeople } from "../../data/people";
import { now, refresh, type Spec, useReading } from "../../data/readings";
import {
  flag,
  type Json,
  moment,
  number,
  records,
  type Told,
  tableOf,
  text,
  told,
  unreadRows,
} from "../../data/shapes";
import { clock, fullTime, hours, price, UNKNOWN } from "../../format";
import { Badge, Panel, type Tone, Trouble, Unread } from "../../ui/parts";
import { type Column, Table } from "../../ui/table";

const RENTS: Spec = { tool: "lium://rents", everySeconds: 120 };

interface Rent {
  readonly key: string;
  readonly name: string | undefined;
  readonly status: string | undefined;
  readonly askedAt: Told<number>;
  readonly closedAt: Told<number>;
  readonly pricePerHourUsd: number | undefined;
  readonly hours: Told<number>;
  readonly byOrder: boolean;
  readonly outcome: string | undefined;
}

function rentsOf(data: Json): readonly Rent[] {
  return records(data.rents).map((given, i) => ({
    key: `${i} ${text(given.asked_at)}`,
    name: text(given.name),
    status: text(given.status),
    askedAt: told(given.asked_at, moment),
    closedAt: told(given.closed_at, moment),
    pricePerHourUsd: number(given.price_per_hour_usd),
    hours: told(given.hours, number),
    byOrder: flag(given.by_order) ?? false,
    outcome: forPeople(text(given.what_came_of_it) ?? "") || undefined,
  }));
}

/** Each status of the ledger, in words of who rents. */
const STATUS = tableOf<readonly [Tone, string]>({
  admitted: ["accent", "On its way"],
  sending: ["accent", "On its way"],
  unknown: ["warn", "Not settled"],
  rented: ["good", "Rented"],
  removing: ["plain", "Being removed"],
  refused: ["bad", "Refused"],
  removed: ["plain", "Removed"],
  absent: ["plain", "Gone"],
  withdrawn: ["plain", "Not sent"],
  closed: ["plain", "Closed"],
});

const COLUMNS: readonly Column<Rent>[] = [
  {
    id: "rent",
    title: "Pod",
    card: "heading",
    by: (rent) => rent.name,
    cell: (rent) => (
      <div class="two">
        <bdi class="clip strong" title={rent.name}>
          {rent.name ?? UNKNOWN}
        </bdi>
        {rent.byOrder && <span class="quiet small">by a standing order</span>}
      </div>
    ),
  },
  {
    id: "status",
    title: "State",
    card: "bare",
    by: (rent) => rent.status,
    cell: (rent) => {
      const [tone, word] = STATUS.get(rent.status ?? "") ?? ["plain", rent.status?.slice(0, 24) ?? "Unknown"];
      return (
        <Badge tone={tone}>
          <bdi>{word}</bdi>
        </Badge>
      );
    },
  },
  {
    id: "asked",
    title: "Asked for",
    by: (rent) => rent.askedAt ?? undefined,
    cell: (rent) => (
      <span class="number" title={fullTime(rent.askedAt)}>
        {clock(rent.askedAt, now.value)}
      </span>
    ),
  },
  {
    id: "ended",
    title: "Ended",
    from: "middle",
    by: (rent) => rent.closedAt ?? undefined,
    cell: (rent) => (
      <span class="number" title={fullTime(rent.closedAt)}>
        {clock(rent.closedAt, now.value)}
      </span>
    ),
  },
  {
    id: "for",
    title: "For",
    from: "wide",
    by: (rent) => rent.hours ?? undefined,
    cell: (rent) => hours(rent.hours),
  },
  {
    id: "quoted",
    title: "Per hour",
    end: true,
    help: "What was quoted for all of its pods together",
    by: (rent) => rent.pricePerHourUsd,
    cell: (rent) => price(rent.pricePerHourUsd),
  },
  {
    id: "outcome",
    title: "What came of it",
    from: "wide",
    cell: (rent) => <span class="foreign short small quiet">{rent.outcome ?? UNKNOWN}</span>,
  },
];

/** Nothing where a page may read no resources, as with some hosts. */
export function Rents() {
  const { data, failure } = useReading(RENTS);
  const rents = useMemo(() => (data === undefined ? [] : rentsOf(data)), [data]);
  const unread = unreadRows(data?.rents);
  if (data === undefined && failure?.code === "unreadable")
    return (
      <Panel title="Rents" note="through this server, from its ledger">
        <Trouble failure={failure} again={() => void refresh("lium://rents")} />
      </Panel>
    );
  if (rents.length + unread === 0) return null;
  return (
    <Panel title="Rents" note="through this server, from its ledger" flush>
      <Unread rows={unread} flush />
      <Table label="rents" rows={rents} columns={COLUMNS} keyOf={(rent) => rent.key} />
      <p class="foot quiet small foreign">{text(data?.note)}</p>
    </Panel>
  );
}
