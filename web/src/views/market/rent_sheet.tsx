// One offer: what it would cost for so many GPUs and hours, and the button that asks the server to rent it.
import { useMemo, useRef, useState } from "preact/hooks";
import { act, underWay } from "../../data/actions";
import { againstRent } from "../../data/limits";
import { forPeople } from "../../data/people";
import { now, refresh, type Spec, useReading } from "../../data/readings";
import { isOffered, policy } from "../../data/server";
import { number, record, text } from "../../data/shapes";
import { count, countryName, hours as hoursInWords, price, usd } from "../../format";
import { useHost } from "../../host/use_host";
import { show } from "../../navigation";
import { Chips, ChoiceField, OwnHours, TextField } from "../../ui/field";
import { Button, Read } from "../../ui/parts";
import { Sheet } from "../../ui/sheet";
import { PODS, podsOf } from "../pods/pod_readings";
import { Refusals, useBounds } from "../refusals";
import { countsOf, type Offer, type Quote, quoteOf } from "./market_readings";

const RESTS_MS = 350;
/** As rent_pod and quote_rental take them. */
const MOST_RENTED_HOURS = 720;
const MOST_PRICED_HOURS = 8760;
const HOURS = [1, 6, 24, 72, 168].map((hours) => [hours, hours < 72 ? `${hours} h` : `${hours / 24} d`] as const);

export function RentSheet({
  offer,
  count: asked,
  close,
}: {
  offer: Offer;
  count: number | undefined;
  close: () => void;
}) {
  const counts = useMemo(() => countsOf(offer), [offer]);
  const [gpus, setGpus] = useState(asked !== undefined && counts.includes(asked) ? asked : counts[0]);
  const [hours, setHours] = useState(6);
  const [fits, setFits] = useState(true);
  // Each keystroke would be a quote of its own.
  const rests = useRef<ReturnType<typeof setTimeout>>(undefined);
  const setOther = (value: number | undefined): void => {
    clearTimeout(rests.current);
    setFits(value !== undefined);
    if (value === undefined) return;
    rests.current = setTimeout(() => setHours(value), RESTS_MS);
  };
  const [name, setName] = useState(() => suggested(offer.gpuType));
  const onlyPriced = !isOffered("rent_pod");
  const pods = useReading(onlyPriced ? undefined : PODS);
  const isTaken = podsOf(pods.data).some((pod) => pod.name === name);
  const spec: Spec = {
    tool: "quote_rental",
    args: { executor_id: offer.id, hours, ...(gpus === undefined ? {} : { gpu_count: gpus }) },
  };
  const state = useReading(spec);
  const host = useHost();
  const bounds = useBounds();
  const busy = underWay.value.has(`rent_pod ${offer.id}`);
  const quote = state.data === undefined ? undefined : quoteOf(state.data);
  const rent = (quoted: Quote): void => {
    close();
    const asks = {
      name,
      executor_id: offer.id,
      hours,
      wait_seconds: 0,
      ...(quoted.gpuCount === undefined ? {} : { gpu_count: quoted.gpuCount }),
      // No dearer than it was shown, whoever is or is not asked before.
      ...(quoted.pricePerHourUsd === undefined
        ? {}
        : { max_usd_per_hour: Math.ceil(quoted.pricePerHourUsd * 1000) / 1000 }),
    };
    void act(
      host,
      {
        tool: "rent_pod",
        args: asks,
        title: `Rent ${name}`,
        did: `rented pod ${name} (${count(quoted.gpuCount)}x ${quoted.gpuType ?? "GPU"} on node ${offer.id}, for ${hours} hours)`,
        done: (data) => said(data, name),
      },
      offer.id,
    ).then((answer) => {
      if (answer?.ok && record(answer.data.pod).pod_id !== undefined) show("pods");
    });
  };
  return (
    <Sheet
      title={onlyPriced ? "What it would cost" : "Rent it"}
      about={[offer.gpuType ?? "GPUs", countryName(offer.country), offer.tier].filter(Boolean).join(", ")}
      close={close}
    >
      <div class="rent-fields">
        {counts.length > 1 && (
          <ChoiceField
            title="GPUs"
            value={String(gpus)}
            onValue={(value) => setGpus(number(value))}
            choices={counts.map((each) => [String(each), String(each)])}
          />
        )}
        {!onlyPriced && <TextField title="Name of the pod" value={name} onValue={setName} required />}
      </div>
      {isTaken && <p class="small warn-text">A pod of this name is there already: a rent needs another one.</p>}
      <div class="field titled">
        <span>For how long</span>
        <div class="line">
          <Chips
            label="For how long"
            value={hours}
            onValue={(chosen) => {
              clearTimeout(rests.current);
              setFits(true);
              setHours(chosen);
            }}
            choices={HOURS}
          />
          <OwnHours most={onlyPriced ? MOST_PRICED_HOURS : MOST_RENTED_HOURS} onValue={setOther} />
        </div>
      </div>
      {fits ? (
        <Read state={state} label="the price" rows={3} again={() => void refresh("quote_rental")}>
          {(data) => <Quoted quote={quoteOf(data)} />}
        </Read>
      ) : (
        <p class="quote quiet">Say for how long, and it is priced.</p>
      )}
      <dl class="facts">
        <div>
          <dt>Country</dt>
          <dd class="foreign">{countryName(offer.country) ?? "not told"}</dd>
        </div>
        <div>
          <dt>Node</dt>
          <dd class="foreign mono small">{offer.id}</dd>
        </div>
        {!onlyPriced && (
          <div>
            <dt>Template</dt>
            <dd>the one that Lium proposes for this node: the question names it</dd>
          </div>
        )}
      </dl>
      {onlyPriced ? (
        <p class="small quiet">
          {policy.value?.readOnly ? "This server is read-only" : "This server does not offer rent_pod"}: nothing is
          rented here.
        </p>
      ) : (
        bounds !== undefined &&
        fits && (
          <Refusals
            found={againstRent(
              bounds,
              { pricePerHourUsd: quote?.pricePerHourUsd, hours, gpuType: offer.gpuType, country: offer.country },
              now.value,
            )}
          />
        )
      )}
      <footer>
        <Button onPress={close}>{onlyPriced ? "Close" : "Cancel"}</Button>
        {!onlyPriced && (
          <Button
            kind="main"
            busy={busy}
            disabled={!fits || quote?.pricePerHourUsd === undefined || name === "" || state.failure !== undefined}
            onPress={() => quote !== undefined && rent(quote)}
          >
            Rent it
          </Button>
        )}
      </footer>
    </Sheet>
  );
}

export function Quoted({ quote }: { quote: Quote }) {
  const { balanceUsd, mustExceedUsd } = quote;
  const short = balanceUsd !== undefined && quote.totalUsd !== undefined && balanceUsd < quote.totalUsd;
  const isTooLow = balanceUsd !== undefined && mustExceedUsd !== undefined && balanceUsd <= mustExceedUsd;
  return (
    <div class="quote">
      <p class="total" role="status">
        <strong>{usd(quote.totalUsd)}</strong>
        <span class="quiet">
          for {hoursInWords(quote.hours)}, at {price(quote.pricePerHourUsd)} an hour
        </span>
      </p>
      {quote.lines.length > 0 && (
        <ul class="rows small">
          {quote.lines.map((line, i) => (
            <li key={i} class="line">
              <span class="foreign">{line.item}</span>
              <span class="quiet foreign">{line.made}</span>
              {line.usd === undefined && line.note !== undefined ? (
                <span class="push quiet foreign">{line.note}, on top</span>
              ) : (
                <span class="push">{usd(line.usd)}</span>
              )}
            </li>
          ))}
        </ul>
      )}
      <p class="small quiet">
        {quote.balanceUsd === undefined ? "The balance is not known." : `Balance: ${usd(quote.balanceUsd)}.`} Nothing is
        reserved.
      </p>
      {quote.pricePerHourUsd === undefined && (
        <p class="banner warn">What it costs is not known, so it cannot be rented here.</p>
      )}
      {isTooLow && (
        <p class="banner warn">Lium will refuse it: the balance must be above {usd(mustExceedUsd)} for a rent.</p>
      )}
      {short && !isTooLow && <p class="banner warn">The balance does not last so long.</p>}
      {quote.warnings.map((warning, i) => (
        <p key={i} class="banner foreign small">
          {warning}
        </p>
      ))}
    </div>
  );
}

/** A name that is free, most likely: the type, and the minute of the day. */
function suggested(gpuType: string | undefined): string {
  const words = (gpuType ?? "gpu")
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .slice(0, 24)
    .replaceAll(/^-|-$/g, "");
  const at = new Date(now.value);
  return `${words || "gpu"}-${String(at.getHours()).padStart(2, "0")}${String(at.getMinutes()).padStart(2, "0")}`;
}

function said(data: Readonly<Record<string, unknown>>, name: string): string {
  const pod = record(data.pod);
  if (text(pod.pod_id) === undefined) return forPeople(text(data.next) ?? `${name} was asked for.`);
  const status = text(pod.status)?.replaceAll("_", " ").toLowerCase();
  const perHour = number(pod.price_per_hour_usd);
  const cost = perHour === undefined ? "what it costs is not told" : `at ${price(perHour)} an hour`;
  return `${name} is rented${status === undefined ? "" : ` (${status})`}, ${cost}.`;
}
