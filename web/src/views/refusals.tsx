// Says before a click what the limits of the server will refuse. Buttons stay as they are: the server judges.
import { type Bounds, boundsOf, type Refusal } from "../data/limits";
import { useReading } from "../data/readings";
import { policy } from "../data/server";
import { BALANCE } from "./pods/pod_readings";

/** The limits with what is used of each, as they were last told. */
export function useBounds(): Bounds | undefined {
  const { data } = useReading(BALANCE);
  return boundsOf(data ?? policy.value?.all);
}

export function Refusals({ found }: { found: readonly Refusal[] }) {
  if (found.length === 0) return null;
  const isSure = found.some((each) => each.isSure);
  return (
    <div class="banner warn refusals">
      <p>The limits of this server {isSure ? "will" : "may"} refuse it:</p>
      <ul>
        {found.map(({ limit, why }, i) => (
          <li key={i} class="foreign">
            <strong>{limit}</strong>: {why}
          </li>
        ))}
      </ul>
    </div>
  );
}
