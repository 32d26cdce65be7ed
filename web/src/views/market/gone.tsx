// GPU types that were for rent lately and are not now.
import { useMemo, useState } from "preact/hooks";
import { now } from "../../data/readings";
import { isNoList, type Json } from "../../data/shapes";
import { ago, count, fullTime, price } from "../../format";
import { Button, Unread } from "../../ui/parts";
import { type Column, Table } from "../../ui/table";
import { type Gone, goneOf, type History, unreadGone } from "./market_readings";

/** So many, those seen last, until somebody wants all. */
const FIRST_SHOWN = 4;

/** Types that were for rent within the last week: when they were last seen, and what they cost then. */
export function GoneTypes({ data, histories }: { data: Json; histories: ReadonlyMap<string, History> }) {
  const gone = useMemo(() => goneOf(data), [data]);
  const [all, setAll] = useState(false);
  const columns = useMemo((): readonly Column<Gone>[] => columnsOfGone(histories), [histories]);
  const unread = unreadGone(data);
  if (isNoList(data.gone)) return <p class="aside small warn-text">Which types are gone could not be read.</p>;
  if (gone.length + unread === 0) return null;
  return (
    <section class="gone" aria-label="Gone from the market">
      <h3>Gone from the market</h3>
      <Unread rows={unread} flush />
      {gone.length > 0 && (
        <Table
          label="types that are gone"
          rows={all ? gone : gone.slice(0, FIRST_SHOWN)}
          columns={columns}
          keyOf={(type) => type.key}
        />
      )}
      {gone.length > FIRST_SHOWN && (
        <p class="foot quiet small">
          <Button kind="link" onPress={() => setAll(!all)}>
            {all ? "Show those seen last" : `Show all ${count(gone.length)} that are gone`}
          </Button>
        </p>
      )}
    </section>
  );
}

function columnsOfGone(histories: ReadonlyMap<string, History>): readonly Column<Gone>[] {
  const lastOf = ({ name }: Gone): number | undefined =>
    histories.get(name)?.lowest.findLast(({ y }) => y !== undefined)?.y;
  return [
    {
      id: "type",
      title: "GPU",
      card: "heading",
      by: ({ name }) => name,
      cell: ({ name }) => <bdi class="clip strong">{name}</bdi>,
    },
    {
      id: "seen",
      title: "Last seen",
      card: "bare",
      by: ({ lastSeen }) => lastSeen ?? undefined,
      cell: ({ lastSeen }) => <span title={fullTime(lastSeen)}>{ago(lastSeen, now.value)}</span>,
    },
    {
      id: "last",
      title: "Last from",
      end: true,
      help: "The lowest price of the last sample that had it",
      by: lastOf,
      cell: (type) => price(lastOf(type)),
    },
    {
      id: "range",
      title: "Lowest, last week",
      end: true,
      help: "The range of the lowest price over the last week, or day",
      by: (type) => (type.lastWeek ?? type.lastDay)?.minUsd,
      cell: (type) => {
        const lowest = type.lastWeek ?? type.lastDay;
        return <span class="number">{`${price(lowest?.minUsd)} to ${price(lowest?.maxUsd)}`}</span>;
      },
    },
    {
      id: "usually",
      title: "Usually",
      end: true,
      help: "The median of the lowest prices over that time",
      by: (type) => (type.lastWeek ?? type.lastDay)?.medianUsd,
      cell: (type) => price((type.lastWeek ?? type.lastDay)?.medianUsd),
    },
  ];
}
