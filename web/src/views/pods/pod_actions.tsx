// What can be done to a pod: give it more time, back it up, remove it. Each is said before; the server asks as always.
import { useState } from "preact/hooks";
import { type Action, act, underWay } from "../../data/actions";
import { againstLife, type Life, type Refusal } from "../../data/limits";
import { now } from "../../data/readings";
import { isOffered } from "../../data/server";
import { moment, number, text } from "../../data/shapes";
import { clock, hours, UNREADABLE, usd } from "../../format";
import { muted } from "../../host/host";
import { useHost } from "../../host/use_host";
import { OwnHours } from "../../ui/field";
import { Button, IconButton } from "../../ui/parts";
import { Sheet } from "../../ui/sheet";
import { Refusals, useBounds } from "../refusals";
import { Unasked } from "../unasked";
import { isEndless, type Pod } from "./pod_readings";

type Form = "removal" | "back up" | "remove";

export function PodActions({ pod, lastBackup, compact }: { pod: Pod; lastBackup: () => string; compact?: boolean }) {
  const [form, setForm] = useState<Form>();
  const host = useHost();
  if (muted.value || pod.phase === "ending" || pod.id === "") return null;
  const close = (): void => setForm(undefined);
  const run = (action: Action): void => {
    close();
    void act(host, action, pod.id);
  };
  const busy = (tool: string): boolean => underWay.value.has(`${tool} ${pod.id}`);
  const name = pod.title;
  const buttons = [
    {
      form: "removal",
      icon: "clock",
      word: isEndless(pod) && pod.removalHoursAfterStart === undefined ? "Set removal" : "Change removal",
      of: " of",
      tool: "schedule_pod_removal",
    },
    { form: "back up", icon: "box", word: "Back up", of: "", tool: "create_backup" },
    { form: "remove", icon: "trash", word: "Remove", of: "", tool: "remove_pod" },
  ] as const;
  return (
    <div class={compact ? "actions compact" : "actions"}>
      {buttons
        .filter((each) => isOffered(each.tool) && (each.form !== "back up" || pod.phase === "running"))
        .map((each) =>
          compact ? (
            <IconButton
              key={each.form}
              icon={each.icon}
              label={`${each.word}${each.of} ${titled60(pod)}`}
              busy={busy(each.tool)}
              onPress={() => setForm(each.form)}
            />
          ) : (
            <Button
              key={each.form}
              icon={each.icon}
              kind={each.form === "remove" ? "danger" : "plain"}
              busy={busy(each.tool)}
              onPress={() => setForm(each.form)}
            >
              {each.word}
            </Button>
          ),
        )}
      {form === "removal" && <SetRemoval pod={pod} name={name} run={run} close={close} />}
      {form === "back up" && <BackUp pod={pod} name={name} lastBackup={lastBackup} run={run} close={close} />}
      {form === "remove" && <Remove pod={pod} name={name} lastBackup={lastBackup} run={run} close={close} />}
    </div>
  );
}

/** As much of its name as a button's label bears, with what tells it from others. */
function titled60({ name, key, mark }: Pod): string {
  return [(name ?? key).slice(0, 60), mark].filter(Boolean).join(", ");
}

/** Whose a pod is that this server did not rent. */
function Whose({ pod }: { pod: Pod }) {
  if (pod.keyName === undefined) return null;
  return (
    <p class={`small ${pod.isKeyUnlike ? "warn-text" : "quiet"}`}>
      It was rented with API key <bdi class="strong">{pod.keyName}</bdi>, and not by this server.
    </p>
  );
}

interface FormProps {
  readonly pod: Pod;
  readonly name: string;
  readonly run: (action: Action) => void;
  readonly close: () => void;
}

const HOURS = [1, 6, 12, 24, 72, 168];
const HOUR_MS = 3_600_000;
/** As schedule_pod_removal takes them: a year. */
const MOST_HOURS = 8760;

function SetRemoval({ pod, name, run, close }: FormProps) {
  const [chosen, setChosen] = useState<number | undefined>(undefined);
  const at = chosen === undefined ? undefined : now.value + chosen * HOUR_MS;
  const earlier = at !== undefined && typeof pod.removalAt === "number" && at < pod.removalAt;
  const bounds = useBounds();
  const refusals = (wanted: number | undefined): readonly Refusal[] =>
    bounds === undefined ? [] : againstLife(bounds, lifeOf(pod), wanted, now.value);
  const takenOff = refusals(undefined).filter(({ isSure }) => isSure);
  const canTakeOff = pod.removalAt !== undefined && isOffered("cancel_pod_removal");
  return (
    <Sheet title="When Lium removes it" about={name} close={close}>
      <Whose pod={pod} />
      <p class="quiet">
        {pod.removalAt === undefined
          ? typeof pod.removalHoursAfterStart === "number"
            ? `Now: ${hours(pod.removalHoursAfterStart)} after it has started.`
            : "It has no removal time: it bills until somebody removes it."
          : pod.removalAt === null
            ? `Its removal time ${UNREADABLE}: it may have one.`
            : `Now: ${clock(pod.removalAt, now.value)}, in ${hours((pod.removalAt - now.value) / HOUR_MS)}.`}
      </p>
      <fieldset class="choices">
        <legend class="unseen">Hours from now</legend>
        {HOURS.map((each) => (
          <button key={each} type="button" class="chip" aria-pressed={chosen === each} onClick={() => setChosen(each)}>
            {each < 72 ? `${each} h` : `${each / 24} d`}
          </button>
        ))}
        <OwnHours most={MOST_HOURS} onValue={setChosen} />
      </fieldset>
      <p class="outcome" role="status">
        {at === undefined || chosen === undefined
          ? "Choose how long from now."
          : `Removed ${clock(at, now.value)}. From now until then: ${usd(
              pod.pricePerHourUsd === undefined ? undefined : pod.pricePerHourUsd * chosen,
            )}.${earlier ? " That is earlier than now set." : ""}`}
      </p>
      {chosen !== undefined && <Refusals found={refusals(chosen)} />}
      <Unasked />
      {canTakeOff && takenOff.length > 0 && (
        <p class="small quiet">
          Taking the time off is refused by the limits of this server: {takenOff.map(({ limit }) => limit).join(", ")}.
        </p>
      )}
      <footer>
        {canTakeOff && (
          <Button
            kind="link"
            onPress={() =>
              run({
                tool: "cancel_pod_removal",
                args: { pod: pod.id },
                title: `Take the removal time off ${name}`,
                did: `cancelled the scheduled removal of pod ${name} (${pod.id})`,
                done: () => `${name} has no removal time now: it bills until somebody removes it.`,
              })
            }
          >
            Take the time off
          </Button>
        )}
        <Button onPress={close}>Cancel</Button>
        <Button
          kind="main"
          disabled={chosen === undefined}
          onPress={() =>
            run({
              tool: "schedule_pod_removal",
              args: { pod: pod.id, hours_from_now: chosen },
              title: `Set the removal of ${name}`,
              did: `set the removal of pod ${name} (${pod.id}) to ${chosen} hours from now`,
              done: (data) => `${name} will be removed ${clock(moment(data.removal_at), now.value)}.`,
            })
          }
        >
          Set the time
        </Button>
      </footer>
    </Sheet>
  );
}

/** What limits on its life are held against. */
function lifeOf({ name, pricePerHourUsd, ageHours, removalAt, removalHoursAfterStart }: Pod): Life {
  const leftHours =
    removalAt === undefined
      ? removalHoursAfterStart
      : removalAt === null
        ? null
        : Math.max(0, removalAt - now.value) / HOUR_MS;
  return { name, pricePerHourUsd, livedHours: ageHours, leftHours };
}

function BackUp({ pod, name, lastBackup, run, close }: FormProps & { lastBackup: () => string }) {
  return (
    <Sheet title="Back it up now" about={name} close={close}>
      <Whose pod={pod} />
      <p>Lium copies the pod's local volume. Last backup: {lastBackup()}.</p>
      <p class="quiet">
        A pod without a backup schedule gets one, which stays: every 6 hours, kept 7 days. Stored backups bill by their
        size until their time is over.
      </p>
      <Unasked />
      <footer>
        <Button onPress={close}>Cancel</Button>
        <Button
          kind="main"
          onPress={() =>
            run({
              tool: "create_backup",
              args: { pod: pod.id, wait_seconds: 0 },
              title: `Back up ${name}`,
              did: `began a backup of pod ${name} (${pod.id})`,
              done: (data) => (data.outcome === "done" ? `${name} is backed up.` : `The backup of ${name} has begun.`),
            })
          }
        >
          Back up
        </Button>
      </footer>
    </Sheet>
  );
}

function Remove({ pod, name, lastBackup, run, close }: FormProps & { lastBackup: () => string }) {
  const canBackUp = pod.phase === "running";
  const [first, setFirst] = useState(canBackUp);
  return (
    <Sheet title="Remove it for good" about={name} close={close}>
      <Whose pod={pod} />
      <p>
        Its billing ends. Its disk and local volume are lost; attached volumes and finished backups stay. Last backup:{" "}
        {lastBackup()}.
      </p>
      {canBackUp && (
        <label class="check">
          <input type="checkbox" checked={first} onChange={(event) => setFirst(event.currentTarget.checked)} />
          <span>Back up first, and remove it only if that is done</span>
        </label>
      )}
      <Unasked />
      <footer>
        <Button onPress={close}>Keep it</Button>
        <Button
          kind="danger"
          onPress={() =>
            run({
              tool: "remove_pod",
              args: { pod: pod.id, ...(first ? { final_backup: true } : {}) },
              title: `Remove ${name}`,
              did: `removed pod ${name} (${pod.id})${first ? " after a last backup" : ""}`,
              done: (data) =>
                data.outcome === "done"
                  ? `${name} is removed${number(data.charged_usd) === undefined ? "" : `; it cost ${usd(number(data.charged_usd))}`}.`
                  : (text(data.next) ?? `The removal of ${name} has begun.`),
            })
          }
        >
          Remove
        </Button>
      </footer>
    </Sheet>
  );
}
