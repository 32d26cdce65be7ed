// The limits of this server: what is allowed, used and left.
import { inUnits, type Limit, limitsOf, overshoot } from "../../data/limits";
import { forPeople } from "../../data/people";
import { flag, isNoList, type Json, text, unreadRows } from "../../data/shapes";
import { Meter, Unread } from "../../ui/parts";

const NEARLY = 0.85;
/** What the note says of a figure that the page does not show. */
const ABOUT_RUNWAY = /runs_out_at assumes[^.]*\./;

export function Limits({ data }: { data: Json }) {
  const limits = limitsOf(data);
  const unread = unreadRows(data.limits, (row) => text(row.limit) !== undefined);
  if (isNoList(data.limits)) return <p class="warn-text">They could not be read.</p>;
  const note = forPeople(text(data.note)?.replace(ABOUT_RUNWAY, "").trim() ?? "");
  return (
    <>
      {flag(data.limits_refuse) === false && (
        <p class="banner warn">These limits are only noted: they refuse nothing now.</p>
      )}
      <Unread rows={unread} />
      {limits.length === 0 && unread > 0 ? null : limits.length === 0 ? (
        <p class="quiet">
          None are set: what an agent may spend is bounded by the balance alone. Whoever runs this server can set some
          (see <code class="mono">lium-mcp policy</code>).
        </p>
      ) : (
        <ul class="limits">
          {limits.map((limit, i) => (
            <OneLimit key={i} limit={limit} />
          ))}
        </ul>
      )}
      {limits.length > 0 && note !== "" && <p class="said small quiet foreign">{note}</p>}
    </>
  );
}

function OneLimit({ limit }: { limit: Limit }) {
  const { allowed, used, left, only } = limit;
  const over = overshoot(limit);
  const words = (value: typeof used): string => inUnits(value, limit.unit);
  const share = allowed === undefined || typeof used !== "number" ? undefined : allowed > 0 ? used / allowed : 1;
  return (
    <li>
      <div class="line">
        <span class="foreign">{limit.title}</span>
        <span class="push foreign strong">{only ?? `at most ${words(allowed)}`}</span>
      </div>
      {used === null && <p class="small warn-text">How much of it is used cannot be read.</p>}
      {share !== undefined && (
        <>
          <Meter
            share={share}
            tone={share >= 1 ? "bad" : share > NEARLY ? "warn" : "accent"}
            label={`${limit.title}: ${words(used)} of ${words(allowed)} used`}
          />
          <div class="line small quiet">
            <span>{words(used)} used</span>
            {over === undefined ? (
              <span class="push">{words(left)} left</span>
            ) : (
              <span class="push bad-text">{words(over)} over</span>
            )}
          </div>
        </>
      )}
    </li>
  );
}
