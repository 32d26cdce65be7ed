// What the Market view reads, what people want of an offer, and what it makes of the answers.
import { signal } from "@preact/signals";
import { forPeople } from "../../data/people";
import type { Spec } from "../../data/readings";
import {
  flag,
  type Json,
  keyMaker,
  list,
  moment,
  number,
  record,
  records,
  type Told,
  text,
  texts,
  told,
  unreadRows,
} from "../../data/shapes";
import type { Point } from "../../ui/chart";

export const PRICES: Spec = { tool: "get_gpu_prices", everySeconds: 60 };

export function historySpec(days: number): Spec {
  return { tool: "get_gpu_prices", args: { history_days: days }, everySeconds: 120 };
}

/** What an offer must have and how offers are sorted: arguments of list_gpus, which quote_rental and rent_pod take too. */
export type Wanted = Readonly<Record<string, string | number | boolean>>;

export const wanted = signal<Wanted>({});

/** What a model had quoted, where that opened the page. */
export const shownQuote = signal<Json | undefined>(undefined);

/** Up to this width offers are cards (styles/table.css), each as high as four rows. */
export const NARROW_PX = 540;
/** In a narrow window, and within a conversation, fewer are what somebody scrolls through. */
export const OFFERS_A_PAGE = window.parent !== window || window.innerWidth <= NARROW_PX ? 20 : 50;
/** So many are drawn of an answer that somebody else asked for. */
const MOST_OFFERS = 50;

export function offersSpec(wishes: Wanted, cursor: string): Spec {
  return {
    tool: "list_gpus",
    args: { ...wishes, limit: OFFERS_A_PAGE, ...(cursor === "" ? {} : { cursor }) },
    everySeconds: 60,
  };
}

/** Of the arguments of a call, those that the view has fields for. */
export function wantedOf(args: Json): Wanted {
  const known = new Set<string>([...FIELDS.map(({ name }) => name), "sort"]);
  return Object.fromEntries(
    Object.entries(args).filter(
      (pair): pair is [string, string | number | boolean] =>
        known.has(pair[0]) && ["string", "number", "boolean"].includes(typeof pair[1]) && pair[1] !== "",
    ),
  );
}

export interface FieldOfOffers {
  readonly name: string;
  readonly title: string;
  readonly kind: "text" | "number" | "choice" | "flag";
  readonly hint?: string;
  readonly choices?: readonly (readonly [string, string])[];
  /** There also where there is little room. */
  readonly first?: boolean;
  /** Behind "More", since few ask for it. */
  readonly rare?: boolean;
}

const SIZES_GB = [12, 16, 24, 32, 48, 80, 96, 141, 180];

export const FIELDS: readonly FieldOfOffers[] = [
  { name: "gpu_type", title: "GPU", kind: "text", hint: "any", first: true },
  { name: "gpu_count", title: "How many", kind: "number", hint: "fewest" },
  { name: "max_usd_per_gpu_hour", title: "At most ($/GPU h)", kind: "number", hint: "any", first: true },
  {
    name: "min_vram_gb",
    title: "GPU memory",
    kind: "choice",
    choices: SIZES_GB.map((size) => [String(size), `${size} GB or more`] as const),
  },
  { name: "country", title: "Country", kind: "text", hint: "US, EU, !CN" },
  {
    name: "tier",
    title: "Tier",
    kind: "choice",
    choices: [
      ["secure", "Secure"],
      ["spot", "Spot"],
    ],
  },
  { name: "nvlink", title: "NVLink", kind: "flag" },
  { name: "max_usd_per_hour", title: "Whole pod ($/h)", kind: "number", hint: "any", rare: true },
  { name: "min_ram_gb", title: "Node RAM (GB)", kind: "number", hint: "any", rare: true },
  { name: "min_disk_gb", title: "Node disk (GB)", kind: "number", hint: "any", rare: true },
  { name: "min_download_mbps", title: "Download (Mbit/s)", kind: "number", hint: "any", rare: true },
  { name: "min_cuda", title: "CUDA version", kind: "number", hint: "12.4", rare: true },
  { name: "docker_in_docker", title: "Docker in Docker", kind: "flag", rare: true },
];

export const SORTS: readonly (readonly [string, string])[] = [
  ["price", "Rental price"],
  ["price_per_gpu", "GPU price"],
  ["vram", "GPU memory"],
  ["download", "Download"],
  ["reliability", "Reliability"],
];

export interface Offer {
  readonly id: string;
  readonly gpuType: string | undefined;
  readonly freeGpus: number | undefined;
  readonly totalGpus: number | undefined;
  /** Which counts it rents, as it says itself: 1-4. */
  readonly rentable: string | undefined;
  readonly pricePerHourUsd: number | undefined;
  readonly pricePerGpuUsd: number | undefined;
  readonly vramGb: number | undefined;
  readonly ramGb: number | undefined;
  readonly diskGb: number | undefined;
  readonly country: string | undefined;
  readonly tier: string | undefined;
  readonly cuda: number | undefined;
  readonly downloadMbps: number | undefined;
  readonly nvlink: boolean | undefined;
  readonly dockerInDocker: boolean | undefined;
  readonly reliability: number | undefined;
  /** What speaks against it, in words. */
  readonly flaws: readonly string[];
}

const COUNTS = /^(\d{1,4})(?:-(\d{1,4}))?$/;

export function offersOf(data: Json | undefined): readonly Offer[] {
  const seen = new Set<string>();
  return records(data?.offers)
    .slice(0, MOST_OFFERS)
    .flatMap((given) => {
      const id = text(given.executor_id);
      // What cannot be named cannot be rented; what moved from one page to the next while it was read is there once.
      if (id === undefined || seen.has(id)) return [];
      seen.add(id);
      const announced = text(given.maintenance);
      return [
        {
          id,
          gpuType: text(given.gpu_type),
          freeGpus: countOf(given.free_gpus),
          totalGpus: countOf(given.total_gpus),
          rentable: COUNTS.test(text(given.rentable_gpus) ?? "") ? text(given.rentable_gpus) : undefined,
          pricePerHourUsd: positive(given.price_per_hour_usd),
          pricePerGpuUsd: positive(given.price_per_gpu_hour_usd),
          vramGb: positive(given.vram_gb),
          ramGb: positive(given.node_ram_gb),
          diskGb: positive(given.node_disk_gb),
          country: text(given.country),
          tier: text(given.tier),
          cuda: positive(given.cuda),
          downloadMbps: positive(given.download_mbps),
          nvlink: flag(given.nvlink),
          dockerInDocker: flag(given.docker_in_docker),
          reliability: number(given.reliability),
          flaws: [
            ...(flag(given.often_fails_to_start) ? ["Pods often fail to start on it"] : []),
            ...(flag(given.power_capped) ? ["Its GPUs run under a power cap"] : []),
            ...(announced === undefined ? [] : [`Maintenance: ${announced}`]),
          ],
        },
      ];
    });
}

/** Rows that are no offers: what cannot be named cannot be rented. */
export function unreadOffers(data: Json | undefined): number {
  return unreadRows(data?.offers, (row) => text(row.executor_id) !== undefined);
}

/** The counts that a node rents, as far as it says: of "1-4", one to four. */
export function countsOf(offer: Offer): readonly number[] {
  const said = COUNTS.exec(offer.rentable ?? "");
  const least = number(said?.[1]);
  const most = number(said?.[2]) ?? least;
  if (least === undefined || most === undefined || least < 1 || most < least || most > 64) return [];
  return Array.from({ length: most - least + 1 }, (_, i) => least + i);
}

export interface Lowest {
  readonly minUsd: number | undefined;
  readonly medianUsd: number | undefined;
  readonly maxUsd: number | undefined;
  readonly samples: number | undefined;
}

export interface GpuType {
  /** What tells it from the others. */
  readonly key: string;
  readonly name: string | undefined;
  readonly vramGb: number | undefined;
  readonly freeGpus: number | undefined;
  readonly nodes: number | undefined;
  readonly minUsd: number | undefined;
  readonly q1Usd: number | undefined;
  readonly medianUsd: number | undefined;
  readonly q3Usd: number | undefined;
  readonly maxUsd: number | undefined;
  readonly seenSince: Told<number>;
  readonly lastDay: Lowest | undefined;
  readonly lastWeek: Lowest | undefined;
}

export function typesOf(data: Json | undefined): readonly GpuType[] {
  const keyOf = keyMaker();
  return records(data?.gpu_types).map((given) => {
    const past = record(given.past);
    return {
      key: keyOf(text(given.gpu_type)),
      name: text(given.gpu_type),
      vramGb: positive(given.vram_gb),
      freeGpus: countOf(given.free_gpus),
      nodes: countOf(given.nodes),
      minUsd: positive(given.min_usd),
      q1Usd: positive(given.q1_usd),
      medianUsd: positive(given.median_usd),
      q3Usd: positive(given.q3_usd),
      maxUsd: positive(given.max_usd),
      seenSince: told(past.seen_since, moment),
      lastDay: lowestOf(past.lowest_last_day),
      lastWeek: lowestOf(past.lowest_last_week),
    };
  });
}

function lowestOf(value: unknown): Lowest | undefined {
  const given = record(value);
  const medianUsd = positive(given.median_usd);
  if (medianUsd === undefined) return undefined;
  return {
    minUsd: positive(given.min_usd),
    medianUsd,
    maxUsd: positive(given.max_usd),
    samples: number(given.samples),
  };
}

export interface History {
  readonly lowest: readonly Point[];
  readonly median: readonly Point[];
}

/** A type that was for rent within the last week, and is not now. */
export interface Gone {
  readonly key: string;
  readonly name: string;
  readonly lastSeen: Told<number>;
  readonly lastDay: Lowest | undefined;
  readonly lastWeek: Lowest | undefined;
}

export function goneOf(data: Json | undefined): readonly Gone[] {
  const keyOf = keyMaker();
  return records(data?.gone).flatMap((given) => {
    const [name, past] = [text(given.gpu_type), record(given.past)];
    if (name === undefined) return [];
    return {
      key: keyOf(name),
      name,
      lastSeen: told(given.last_seen, moment),
      lastDay: lowestOf(past.lowest_last_day),
      lastWeek: lowestOf(past.lowest_last_week),
    };
  });
}

/** Rows of types that are gone, of which not even the name is told. */
export function unreadGone(data: Json | undefined): number {
  return unreadRows(data?.gone, (row) => text(row.gpu_type) !== undefined);
}

/** Earlier prices of each type, by its name, also of those that are gone. */
export function historiesOf(data: Json | undefined): ReadonlyMap<string, History> {
  const found = new Map<string, History>();
  for (const given of [...records(data?.gpu_types), ...records(data?.gone)]) {
    const name = text(given.gpu_type);
    const history = record(record(given.past).history);
    const at = list(history.at).map(moment);
    const points = (values: unknown, others: readonly Point[] = []): readonly Point[] => {
      const ys = list(values);
      const own = at.flatMap((x, i) => (x === undefined ? [] : [{ x, y: positive(ys[i]) }]));
      return [...others, ...own].sort((a, b) => a.x - b.x);
    };
    const other = found.get(name ?? "");
    const lowest = points(history.lowest_usd, other?.lowest);
    if (name !== undefined && lowest.length > 0)
      found.set(name, { lowest, median: points(history.median_usd, other?.median) });
  }
  return found;
}

/** How the lowest price now stands to what was usual: 0.9 is a tenth cheaper. The week counts before the day. */
export function againstUsual(type: GpuType): number | undefined {
  const usual = (type.lastWeek ?? type.lastDay)?.medianUsd;
  return type.minUsd === undefined || usual === undefined ? undefined : type.minUsd / usual;
}

/** Of which time what is usual is known, in words. */
export function usualOf(type: GpuType): string {
  return type.lastWeek === undefined ? "the last day" : "the last week";
}

export interface Quote {
  readonly executorId: string | undefined;
  readonly gpuType: string | undefined;
  readonly gpuCount: number | undefined;
  readonly hours: number | undefined;
  readonly pricePerHourUsd: number | undefined;
  readonly totalUsd: number | undefined;
  readonly lines: readonly {
    readonly item: string;
    readonly made: string | undefined;
    readonly usd: number | undefined;
    /** Why it has no amount. */
    readonly note: string | undefined;
  }[];
  readonly balanceUsd: number | undefined;
  readonly mustExceedUsd: number | undefined;
  readonly warnings: readonly string[];
}

export function quoteOf(data: Json): Quote {
  return {
    executorId: text(data.executor_id),
    gpuType: text(data.gpu_type),
    gpuCount: number(data.gpu_count),
    hours: number(data.hours),
    pricePerHourUsd: positive(data.price_per_hour_usd),
    totalUsd: number(data.total_usd),
    lines: records(data.lines).map((line) => {
      const quantity = number(line.quantity);
      return {
        item: text(line.item) ?? "–",
        made: quantity === undefined || quantity === 0 ? undefined : `${quantity} ${text(line.unit) ?? ""}`.trim(),
        usd: number(line.amount_usd),
        note: text(line.note),
      };
    }),
    balanceUsd: number(data.balance_usd),
    mustExceedUsd: number(data.balance_must_exceed_usd),
    warnings: texts(data.warnings).map(forPeople),
  };
}

/** Prices and sizes of nothing or less are none. */
function positive(value: unknown): number | undefined {
  const read = number(value);
  return read !== undefined && read > 0 ? read : undefined;
}

/** None can be counted, but not fewer. */
function countOf(value: unknown): number | undefined {
  const read = number(value);
  return read !== undefined && read >= 0 ? read : undefined;
}
