// A table that sorts, opens rows and stays quick: it draws a page of rows, however many there are. Where it is narrow,
// each row becomes a card (styles/table.css).
import type { ComponentChildren } from "preact";
import { useMemo, useRef, useState } from "preact/hooks";
import { count } from "../format";
import { Icon } from "./icons";
import { Button } from "./parts";
import { useWidth } from "./width";

export interface Column<Row> {
  readonly id: string;
  readonly title: string;
  readonly cell: (row: Row) => ComponentChildren;
  /** What it is sorted by; a column without cannot be. What is undefined comes last either way. */
  readonly by?: (row: Row) => number | string | undefined;
  readonly end?: boolean;
  /** Whether its title is left to screen readers. */
  readonly silent?: boolean;
  /** Where there is room for it: always (the default), where rows are no cards, in the middle, or only where it is wide. */
  readonly from?: "rows" | "middle" | "wide";
  /** On a card: its heading, a line with its title (the default), or a line without. */
  readonly card?: "heading" | "bare";
  /** Words for what the title alone does not say. */
  readonly help?: string;
}

export interface Order {
  readonly column: string;
  readonly down: boolean;
}

const ROWS_A_PAGE = 50;

export function Table<Row>(props: {
  label: string;
  rows: readonly Row[];
  columns: readonly Column<Row>[];
  keyOf: (row: Row) => string;
  first?: Order;
  /** The row that is open, and what is shown below it. */
  open?: string | undefined;
  onOpen?: (key: string | undefined) => void;
  detail?: (row: Row) => ComponentChildren;
  nameOf?: (row: Row) => string;
}) {
  const [order, setOrder] = useState(props.first);
  const [page, setPage] = useState(0);
  const rows = useMemo(() => sorted(props.rows, props.columns, order), [props.rows, props.columns, order]);
  const pages = Math.max(1, Math.ceil(rows.length / ROWS_A_PAGE));
  const at = Math.min(page, pages - 1);
  const shown = rows.slice(at * ROWS_A_PAGE, (at + 1) * ROWS_A_PAGE);
  const opens = props.detail !== undefined;
  const sortBy = (column: string): void => {
    setOrder((was) => ({ column, down: was?.column === column ? !was.down : false }));
    setPage(0);
  };
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box);
  const columns = useMemo(() => props.columns.filter(({ from }) => fits(from, width)), [props.columns, width]);
  return (
    <div ref={box} class="table-box">
      <table class="table" aria-label={props.label}>
        <thead>
          <tr>
            {opens && (
              <th class="opener">
                <span class="unseen">Details</span>
              </th>
            )}
            {columns.map((column) => (
              <th
                key={column.id}
                scope="col"
                class={classOf(column)}
                title={column.help}
                aria-sort={
                  column.by === undefined
                    ? undefined
                    : order?.column !== column.id
                      ? "none"
                      : order.down
                        ? "descending"
                        : "ascending"
                }
              >
                {column.silent ? (
                  <span class="unseen">{column.title}</span>
                ) : column.by === undefined ? (
                  column.title
                ) : (
                  <button type="button" onClick={() => sortBy(column.id)}>
                    {column.title}
                    <span class={`arrow${order?.column === column.id ? "" : " off"}`}>
                      <Icon name={order?.column === column.id && order.down ? "down" : "up"} />
                    </span>
                  </button>
                )}
              </th>
            ))}
          </tr>
        </thead>
        {shown.map((row) => {
          const key = props.keyOf(row);
          const isOpen = opens && props.open === key;
          const flip = (): void => props.onOpen?.(isOpen ? undefined : key);
          return (
            <tbody key={key} class={isOpen ? "open" : undefined}>
              <tr
                class={opens ? "opens" : undefined}
                onClick={(event) => {
                  if (opens && !(event.target as Element).closest("button, a, input, select, code")) flip();
                }}
              >
                {opens && (
                  <td class="opener">
                    <button
                      type="button"
                      class="icon-button"
                      aria-expanded={isOpen}
                      aria-label={`Details of ${props.nameOf?.(row) ?? key}`}
                      onClick={flip}
                    >
                      <Icon name="chevron" />
                    </button>
                  </td>
                )}
                {columns.map((column) => (
                  <td key={column.id} class={classOf(column)} data-title={column.title}>
                    {column.cell(row)}
                  </td>
                ))}
              </tr>
              {isOpen && (
                <tr class="detail">
                  <td colSpan={columns.length + 1}>{props.detail?.(row)}</td>
                </tr>
              )}
            </tbody>
          );
        })}
      </table>
      {pages > 1 && (
        <nav class="pager" aria-label={`Pages of ${props.label}`}>
          <span role="status">
            {count(at * ROWS_A_PAGE + 1)}–{count(Math.min(rows.length, (at + 1) * ROWS_A_PAGE))} of {count(rows.length)}
          </span>
          <Button disabled={at === 0} onPress={() => setPage(at - 1)}>
            Back
          </Button>
          <Button disabled={at === pages - 1} onPress={() => setPage(at + 1)}>
            Next
          </Button>
        </nav>
      )}
    </div>
  );
}

/** From what width on a column has room; up to the first, rows are cards (styles/table.css). */
const ABOVE_PX = { rows: 540, middle: 740, wide: 880 } as const;

function fits(from: Column<never>["from"], width: number): boolean {
  return width === 0 || from === undefined || width > ABOVE_PX[from];
}

function classOf<Row>({ id, end, card }: Column<Row>): string {
  return [`col-${id}`, end && "end", card && `card-${card}`].filter(Boolean).join(" ");
}

export function sorted<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  order: Order | undefined,
): readonly Row[] {
  const by = columns.find((column) => column.id === order?.column)?.by;
  if (by === undefined || order === undefined) return rows;
  const sign = order.down ? -1 : 1;
  const valued = rows.map((row) => ({ row, value: by(row) }));
  valued.sort((a, b) => {
    if (a.value === undefined || b.value === undefined) return a.value === b.value ? 0 : a.value === undefined ? 1 : -1;
    if (typeof a.value === "number" && typeof b.value === "number") return sign * (a.value - b.value);
    return sign * collator.compare(String(a.value), String(b.value));
  });
  return valued.map(({ row }) => row);
}

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
