// Offers: what is for rent now, filtered, sorted and paged by the server, so that the page stays as quick with thousands.
import { useMemo, useRef, useState } from "preact/hooks";
import { forPeople, incompleteOf } from "../../data/people";
import { refresh, useReading } from "../../data/readings";
import { isOffered } from "../../data/server";
import { type Json, number, text } from "../../data/shapes";
import { above } from "../../data/typed";
import { count, countryName, gb, plural, price, UNKNOWN } from "../../format";
import { muted } from "../../host/host";
import { Chips, ChoiceField, TextField } from "../../ui/field";
import { Icon } from "../../ui/icons";
import { Pager, usePages } from "../../ui/pager";
import { Badge, Button, Copy, Empty, Incomplete, isEmptyAs, Panel, Read, Unread } from "../../ui/parts";
import { type Column, Table } from "../../ui/table";
import { useWidth } from "../../ui/width";
import {
  FIELDS,
  type FieldOfOffers,
  NARROW_PX,
  OFFERS_A_PAGE,
  type Offer,
  offersOf,
  offersSpec,
  PRICES,
  SORTS,
  typesOf,
  unreadOffers,
  type Wanted,
  wanted,
} from "./market_readings";
import { RentSheet } from "./rent_sheet";

export function Offers() {
  const wishes = wanted.value;
  const pages = usePages(JSON.stringify(wishes));
  const state = useReading(offersSpec(wishes, pages.cursor));
  // What was there stands until the next is.
  const before = useRef<Json>(undefined);
  if (state.data !== undefined) before.current = state.data;
  const waits = state.data === undefined && state.failure === undefined && before.current !== undefined;
  const shown = waits ? { ...state, data: before.current } : state;
  const [chosen, setChosen] = useState<Offer>();
  const total = number(shown.data?.total);
  if (muted.value && isEmptyAs([shown])) return null;
  return (
    <div id="offers">
      <Panel
        title="Offers"
        flush
        note={
          total === undefined
            ? undefined
            : `${plural(total, "node")} with free GPUs${isEmpty(wishes) ? "" : " that fit"}`
        }
      >
        {!muted.value && <Filters />}
        <div class={waits ? "waits" : undefined} aria-busy={waits}>
          <Read state={shown} label="offers" rows={8} again={() => void refresh("list_gpus")}>
            {(data) => <Listed data={data} choose={setChosen} />}
          </Read>
        </div>
        {shown.data !== undefined && !muted.value && (
          <Pager
            label="offers"
            pages={pages}
            shown={offersOf(shown.data).length}
            pageSize={OFFERS_A_PAGE}
            total={total}
            nextCursor={text(shown.data.next_cursor)}
          />
        )}
      </Panel>
      {chosen !== undefined && (
        <RentSheet offer={chosen} count={number(wishes.gpu_count)} close={() => setChosen(undefined)} />
      )}
    </div>
  );
}

function isEmpty(wishes: Wanted): boolean {
  return Object.keys(wishes).every((name) => name === "sort");
}

function Listed({ data, choose }: { data: Json; choose: (offer: Offer) => void }) {
  const offers = useMemo(() => offersOf(data), [data]);
  const columns = useMemo(() => columnsOf(choose), [choose]);
  const [open, setOpen] = useState<string>();
  const said = text(data.next) === undefined ? undefined : forPeople(text(data.next) ?? "");
  // What the market lacks the prices say already.
  const prices = useReading(PRICES);
  const incomplete = incompleteOf(prices.data) === incompleteOf(data) ? null : <Incomplete data={data} />;
  const unread = unreadOffers(data);
  if (offers.length === 0)
    return (
      <>
        {unread > 0 ? (
          <Unread rows={unread} what="offer" flush />
        ) : (
          <Empty title={isEmpty(wanted.value) ? "Nothing is for rent now" : "No offer fits these wishes"} icon="search">
            <span class="foreign">{said ?? "Take something off, or look again later."}</span>
          </Empty>
        )}
        {incomplete}
      </>
    );
  return (
    <>
      {incomplete}
      {said !== undefined && <p class="aside foreign small">{said}</p>}
      <Unread rows={unread} what="offer" flush />
      <Table
        label="offers"
        rows={offers}
        columns={columns}
        keyOf={(offer) => offer.id}
        nameOf={(offer) => `${offer.gpuType ?? "offer"} at ${price(offer.pricePerHourUsd)} an hour`}
        open={open}
        onOpen={setOpen}
        detail={(offer) => <Detail offer={offer} choose={choose} />}
      />
    </>
  );
}

function columnsOf(choose: (offer: Offer) => void): readonly Column<Offer>[] {
  return [
    {
      id: "gpu",
      title: "GPU",
      card: "heading",
      cell: (offer) => (
        <div class="two">
          <bdi class="clip strong">{offer.gpuType ?? "Not named"}</bdi>
          <span class="quiet small">
            {offer.vramGb === undefined ? "memory not told" : gb(offer.vramGb)}
            {offer.nvlink && " · NVLink"}
            {offer.country !== undefined && <bdi class="on-card"> · {countryName(offer.country.slice(0, 40))}</bdi>}
          </span>
        </div>
      ),
    },
    {
      id: "tier",
      title: "Tier",
      card: "bare",
      cell: (offer) => (
        <span class="state">
          {offer.tier === undefined ? (
            <span class="quiet">{UNKNOWN}</span>
          ) : (
            <Badge tone={offer.tier.toLowerCase() === "spot" ? "warn" : "plain"}>
              <bdi>{offer.tier.slice(0, 40)}</bdi>
            </Badge>
          )}
          {offer.flaws.length > 0 && (
            <span class="flaw" title={offer.flaws.join(". ")}>
              <Icon name="warning" />
              <span class="unseen">{offer.flaws.join(". ")}</span>
            </span>
          )}
        </span>
      ),
    },
    {
      id: "rental",
      title: "Rental per hour",
      end: true,
      help: "Of the smallest rental, or of as many GPUs as you asked for",
      cell: (offer) => <span class="strong">{price(offer.pricePerHourUsd)}</span>,
    },
    { id: "price", title: "Per GPU", end: true, cell: (offer) => price(offer.pricePerGpuUsd) },
    {
      id: "free",
      title: "GPUs to rent",
      help: "How many GPUs it rents, of how many it has",
      cell: (offer) => (
        <span class="foreign">
          {offer.rentable?.replace("-", "–") ?? count(offer.freeGpus)}
          {offer.totalGpus !== undefined && <span class="quiet"> of {count(offer.totalGpus)}</span>}
        </span>
      ),
    },
    {
      id: "country",
      title: "Country",
      from: "middle",
      cell: (offer) => <bdi title={countryName(offer.country)}>{offer.country?.slice(0, 40) ?? UNKNOWN}</bdi>,
    },
    { id: "ram", title: "RAM", from: "wide", end: true, help: "Of the node", cell: (offer) => gb(offer.ramGb) },
    { id: "disk", title: "Disk", from: "wide", end: true, help: "Of the node", cell: (offer) => gb(offer.diskGb) },
    { id: "download", title: "Download", from: "wide", end: true, cell: (offer) => speed(offer.downloadMbps) },
    {
      id: "reliability",
      title: "Reliable",
      from: "wide",
      end: true,
      help: "Lium's score of the node",
      cell: (offer) => count(offer.reliability),
    },
    {
      id: "rent",
      title: "Rent",
      silent: true,
      from: "rows",
      end: true,
      cell: (offer) => <PriceIt offer={offer} choose={choose} />,
    },
  ];
}

function PriceIt({ offer, choose }: { offer: Offer; choose: (offer: Offer) => void }) {
  const word = isOffered("rent_pod") ? "Rent" : "Price";
  return muted.value ? null : (
    <Button
      label={`${word} ${offer.gpuType?.slice(0, 60) ?? "it"}, ${price(offer.pricePerHourUsd)} an hour`}
      onPress={() => choose(offer)}
    >
      {word}…
    </Button>
  );
}

function Detail({ offer, choose }: { offer: Offer; choose: (offer: Offer) => void }) {
  const facts: readonly (readonly [string, string])[] = [
    ["GPU memory", gb(offer.vramGb)],
    ["NVLink", yesOr(offer.nvlink)],
    ["Country", countryName(offer.country) ?? UNKNOWN],
    ["RAM", `${gb(offer.ramGb)}, of the whole node`],
    ["Disk", `${gb(offer.diskGb)}, of the whole node`],
    ["Download", speed(offer.downloadMbps)],
    ["CUDA", offer.cuda === undefined ? UNKNOWN : String(offer.cuda)],
    ["Docker in Docker", yesOr(offer.dockerInDocker)],
    ["Reliability", count(offer.reliability)],
  ];
  return (
    <div class="offer-detail">
      {offer.flaws.map((flaw) => (
        <p key={flaw} class="banner warn foreign">
          {flaw}
        </p>
      ))}
      <dl class="facts columns">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd class="foreign">{value}</dd>
          </div>
        ))}
        <div>
          <dt>Node</dt>
          <dd>
            <Copy value={offer.id} label="Copy the node's id" />
          </dd>
        </div>
      </dl>
      <div class="actions">
        <PriceIt offer={offer} choose={choose} />
      </div>
    </div>
  );
}

/** Lium tells only that it is there. */
function yesOr(there: boolean | undefined): string {
  return there ? "Yes" : "Not told";
}

function speed(mbps: number | undefined): string {
  return mbps === undefined ? UNKNOWN : mbps >= 1000 ? `${(mbps / 1000).toFixed(1)} Gbit/s` : `${count(mbps)} Mbit/s`;
}

function Filters() {
  const wishes = wanted.value;
  const prices = useReading(PRICES);
  const types = useMemo(() => typesOf(prices.data).flatMap(({ name }) => name?.slice(0, 60) ?? []), [prices.data]);
  const [more, setMore] = useState(false);
  const box = useRef<HTMLFormElement>(null);
  const width = useWidth(box);
  const narrow = width > 0 && width <= NARROW_PX;
  const shown = FIELDS.filter(({ name, first, rare }) => more || name in wishes || first || (!narrow && !rare));
  const set = (name: string, value: string | number | boolean | undefined): void => {
    const { [name]: _, ...others } = wanted.value;
    wanted.value = value === undefined || value === "" || value === false ? others : { ...others, [name]: value };
  };
  return (
    <form ref={box} class="filters" aria-label="What an offer must have" onSubmit={(event) => event.preventDefault()}>
      {shown.map((field) => (
        <OneFilter key={field.name} field={field} wishes={wishes} set={set} types={types} />
      ))}
      <ChoiceField
        title="Best first"
        value={String(wishes.sort ?? "price")}
        onValue={(value) => set("sort", value === "price" ? undefined : value)}
        choices={SORTS}
      />
      <div class="ends">
        <Button kind="link" onPress={() => setMore(!more)}>
          {more ? "Fewer" : "More"}
        </Button>
        {!isEmpty(wishes) && (
          <Button
            kind="link"
            onPress={() => {
              wanted.value = wishes.sort === undefined ? {} : { sort: wishes.sort };
            }}
          >
            Clear
          </Button>
        )}
      </div>
    </form>
  );
}

function OneFilter(props: {
  field: FieldOfOffers;
  wishes: Wanted;
  set: (name: string, value: string | number | boolean | undefined) => void;
  types: readonly string[];
}) {
  const { field, wishes, set } = props;
  const value = wishes[field.name];
  switch (field.kind) {
    case "flag":
      return (
        <div class="field titled">
          <span aria-hidden="true">{field.title}</span>
          <Chips
            label={field.title}
            value={value === true ? "with" : "any"}
            onValue={(chosen) => set(field.name, chosen === "with")}
            choices={[
              ["any", "Any"],
              ["with", "With"],
            ]}
          />
        </div>
      );
    case "choice":
      return (
        <ChoiceField
          title={field.title}
          value={String(value ?? "")}
          onValue={(chosen) => set(field.name, number(chosen) ?? chosen)}
          choices={[["", "Any"], ...(field.choices ?? [])]}
        />
      );
    default:
      return (
        <TextField
          title={field.title}
          value={String(value ?? "")}
          numeric={field.kind === "number"}
          {...(field.hint === undefined ? {} : { hint: field.hint })}
          {...(field.name === "gpu_type" ? { choices: props.types } : {})}
          onValue={(typed) => set(field.name, field.kind === "number" ? above(typed) : typed)}
        />
      );
  }
}
