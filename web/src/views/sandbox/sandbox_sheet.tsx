// The sandbox's clock and faults, to play with: what a bad day at Lium looks like, and what tomorrow does.
import { useEffect, useState } from "preact/hooks";
import { say } from "../../data/actions";
import { refresh } from "../../data/readings";
import { type Json, moment, number, record, records, text } from "../../data/shapes";
import { authorized } from "../../host/browser";
import { Badge, Button } from "../../ui/parts";
import { Sheet } from "../../ui/sheet";

const LIMIT_MS = 10_000;
const STEPS = [
  ["10 min", 600],
  ["1 h", 3600],
  ["6 h", 21_600],
  ["1 day", 86_400],
] as const;
const SPEEDS = [0, 1, 60, 600];

/** What can go wrong, in words, and as the sandbox takes it. */
const FAULTS: readonly (readonly [string, Json])[] = [
  ["Lium answers 503", { kind: "error", status: 503, times: 3 }],
  ["Too many requests", { kind: "rate_limit", times: 3 }],
  ["Answers take 8 seconds", { kind: "slow", seconds: 8, times: 5 }],
  ["An answer gets lost", { kind: "lost_answer", times: 1 }],
  ["The key is refused", { kind: "unauthorized", times: 3 }],
  ["Lists are empty", { kind: "empty_list", times: 3 }],
  ["Figures are missing", { kind: "missing_fields", times: 5 }],
  ["Figures are absurd", { kind: "absurd_figures", times: 5 }],
  ["The next boot fails", { kind: "boot_fails", times: 1 }],
  ["A spot node is taken back", { kind: "spot_reclaim", times: 1 }],
  ["A container restarts", { kind: "container_restarts", times: 1 }],
  ["The next backup fails", { kind: "backup_fails", times: 1 }],
  ["The next removal fails", { kind: "delete_fails", times: 1 }],
];

async function ask(path: string, method: string, body?: Json): Promise<unknown> {
  const init: RequestInit = { method, signal: AbortSignal.timeout(LIMIT_MS) };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { "content-type": "application/json" };
  }
  try {
    const answer = await authorized(path, init);
    const said: unknown = await answer.json();
    if (answer.ok) return said;
    say("failed", text(record(said).error) ?? `The sandbox answered ${answer.status}.`);
  } catch {
    say("failed", "The sandbox does not answer.");
  }
  return undefined;
}

export function SandboxSheet({ at, close }: { at: string; close: () => void }) {
  const [clock, setClock] = useState<Json>({});
  const [armed, setArmed] = useState<readonly Json[]>([]);
  useEffect(() => {
    void ask(`${at}/clock`, "GET").then((said) => setClock(record(said)));
    void ask(`${at}/faults`, "GET").then((said) => setArmed(records(said)));
  }, [at]);
  const turn = async (body: Json): Promise<void> => {
    setClock(record(await ask(`${at}/clock`, "POST", body)));
    void refresh();
  };
  const arm = async (method: string, fault?: Json): Promise<void> => {
    setArmed(records(await ask(`${at}/faults`, method, fault)));
    void refresh();
  };
  const now = moment(clock.now);
  const speed = number(clock.speed);
  return (
    <Sheet title="The sandbox" about="A simulated Lium: no money, no real pods" close={close}>
      <h3>Clock</h3>
      <p class="outcome one-line" role="status">
        {now === undefined ? "…" : new Date(now).toLocaleString("en", { dateStyle: "medium", timeStyle: "medium" })}
      </p>
      <div class="choices">
        {STEPS.map(([word, seconds]) => (
          <button key={word} type="button" class="chip" onClick={() => void turn({ advance_seconds: seconds })}>
            + {word}
          </button>
        ))}
      </div>
      <div class="choices">
        {SPEEDS.map((each) => (
          <button
            key={each}
            type="button"
            class="chip"
            aria-pressed={speed === each}
            onClick={() => void turn({ speed: each })}
          >
            {each === 0 ? "Stopped" : each === 1 ? "Real time" : `${each}× faster`}
          </button>
        ))}
      </div>
      <h3>Faults</h3>
      <div class="choices">
        {FAULTS.map(([word, fault]) => (
          <button key={word} type="button" class="chip" onClick={() => void arm("POST", fault)}>
            {word}
          </button>
        ))}
      </div>
      <p class="armed" role="status">
        {armed.length === 0 ? (
          <span class="quiet">None is waiting to strike.</span>
        ) : (
          armed.map((fault, i) => (
            <Badge key={`${text(fault.kind)} ${i}`} tone="warn">
              {text(fault.kind)?.replaceAll("_", " ") ?? "a fault"}
              {number(fault.times) !== undefined && ` ×${number(fault.times)}`}
            </Badge>
          ))
        )}
      </p>
      <footer>
        <Button kind="link" disabled={armed.length === 0} onPress={() => void arm("DELETE")}>
          Take all back
        </Button>
        <Button onPress={close}>Close</Button>
      </footer>
    </Sheet>
  );
}
