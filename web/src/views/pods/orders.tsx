// Standing orders: what is to be rented once something fits.
import { now } from "../../data/readings";
import { tableOf } from "../../data/shapes";
import { fullTime, hours, price, sentence, UNKNOWN, UNREADABLE, until, usd } from "../../format";
import { Badge, Panel, type Tone, Unread } from "../../ui/parts";
import type { Order } from "./pod_readings";

const ORDER_TONE = tableOf<Tone>({
  waiting: "accent",
  renting: "accent",
  rented: "good",
  failed: "bad",
});

/** For how long, and within which ceilings; one that cannot be read is not none. */
function termsOf({ hours: length, maxUsdPerHour, maxTotalUsd }: Order): string {
  return [
    length === undefined ? [] : length === null ? `its hours ${UNREADABLE}` : `for ${hours(length)}`,
    maxUsdPerHour === undefined
      ? []
      : maxUsdPerHour === null
        ? `its ceiling for an hour ${UNREADABLE}`
        : `at most ${price(maxUsdPerHour)}/h`,
    maxTotalUsd === undefined
      ? []
      : maxTotalUsd === null
        ? `its ceiling in all ${UNREADABLE}`
        : `${usd(maxTotalUsd)} in all`,
  ]
    .flat()
    .join(", ");
}

export function Orders({ orders, unread }: { orders: readonly Order[]; unread: number }) {
  return (
    <Panel title="Standing orders" note="rented once something fits">
      <Unread rows={unread} />
      <ul class="rows">
        {orders.map((order) => (
          <li key={order.key}>
            <div class="line">
              <bdi class="strong">{order.name ?? UNKNOWN}</bdi>
              <Badge tone={ORDER_TONE.get(order.status ?? "") ?? "plain"}>{sentence(order.status) ?? UNKNOWN}</Badge>
              <span class="foreign short">{order.wants}</span>
              <span class="quiet">{termsOf(order)}</span>
              <span class="quiet push" title={fullTime(order.expiresAt)}>
                {until(order.expiresAt, now.value)}
              </span>
            </div>
            {order.because !== undefined && <p class="quiet small foreign short">{order.because}</p>}
          </li>
        ))}
      </ul>
    </Panel>
  );
}
