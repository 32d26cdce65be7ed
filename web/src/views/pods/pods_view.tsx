// The Pods view: what runs, what it burns, when it ends, and what it does.
import { useEffect, useMemo, useState } from "preact/hooks";
import { forPeople } from "../../data/people";
import { now, refresh, type State, useReading } from "../../data/readings";
import { isNoList, type Json, number, record, records, text, unreadRows } from "../../data/shapes";
import { count, hours, plural, sentence, span, UNKNOWN, usd } from "../../format";
import { openPod, show } from "../../navigation";
import { Button, Empty, Figure, Figures, lacksKey, Missing, NoKey, Panel, Read, Unread } from "../../ui/parts";
import { Table } from "../../ui/table";
import { Burning } from "../burning";
import { forecast, lastsInWords } from "../money/forecast";
import { Orders } from "./orders";
import { columnsOf } from "./pod_columns";
import { PodDetail } from "./pod_detail";
import {
  areAllBackups,
  BACKUPS,
  BALANCE,
  backedUpOf,
  backupsOf,
  isEndless,
  isUncosted,
  isUndated,
  ordersOf,
  PODS,
  type Pod,
  podSpec,
  podsOf,
  untoldPods,
  WATCHED_SECONDS,
} from "./pod_readings";

/** Of so many pods the list reads what their GPUs do; of the others their details tell. */
const MOST_WATCHED = 6;
/** How often backups are read, and how often while one is under way. */
const BACKUPS_SECONDS = 120;
const HURRY_SECONDS = 20;

export function PodsView() {
  const list = useReading(PODS);
  const balance = useReading(lacksKey(list) ? undefined : BALANCE);
  const alone = list.data === undefined ? openPod.value : undefined;
  if (lacksKey(list)) return <NoKey failure={list.failure} />;
  return (
    <div class="view">
      <Summary listed={list} balanced={balance} />
      <Missing state={balance} what="The balance" />
      {alone !== undefined && <Alone id={alone} />}
      <Read state={list} label="pods" panel rows={5} again={() => void refresh("list_pods")}>
        {(data) => <Pods data={data} />}
      </Read>
    </div>
  );
}

/** The pod that a model had read, while there is no list for it to stand in. */
function Alone({ id }: { id: string }) {
  const { data } = useReading(podSpec(id, WATCHED_SECONDS));
  const backups = useReading({ ...BACKUPS, everySeconds: BACKUPS_SECONDS });
  if (data === undefined) return null;
  const [pod] = podsOf({ pods: [record(data.pod)] });
  return pod === undefined ? null : (
    <Panel title={pod.name ?? id} note={sentence(pod.status)}>
      <PodDetail pod={pod} backups={backups} />
    </Panel>
  );
}

function Summary({ listed, balanced }: { listed: State; balanced: State }) {
  const [list, balance] = [listed.data, balanced.data];
  const pods = podsOf(list);
  const running = pods.filter((pod) => pod.phase === "running").length;
  const known = pods.flatMap((pod) => pod.costUsd ?? []);
  const cost = known.length === 0 ? undefined : known.reduce((sum, each) => sum + each, 0);
  const endless = pods.filter((pod) => pod.phase === "running" && isEndless(pod)).length;
  const undated = pods.filter(isUndated).length;
  const next = pods
    .filter((pod) => typeof pod.removalAt === "number" && pod.phase !== "ending")
    .reduce<Pod | undefined>(
      (first, pod) => ((first?.removalAt ?? Infinity) <= (pod.removalAt ?? 0) ? first : pod),
      undefined,
    );
  const nextIn = typeof next?.removalAt === "number" ? (next.removalAt - now.value) / 1000 : undefined;
  const untold = untoldPods(list);
  const uncosted = untold + pods.filter(isUncosted).length;
  const left = number(balance?.balance_usd);
  const lasts = number(balance?.runway_hours);
  const isUsedUp = left !== undefined && left <= 0;
  // As the view of the money has it; the server counts with no removal.
  const ahead = left === undefined || list === undefined ? undefined : forecast(left, pods, now.value);
  const foreseen = ahead === undefined || ahead.unpriced + untold > 0 ? undefined : lastsInWords(ahead, now.value);
  const ifAllRunOn = pods.every(isEndless) ? "" : " if all run on";
  return (
    <Figures of={[listed, balanced]}>
      <Burning from={[listed, balanced]} />
      <Figure
        label="Running"
        of={[listed]}
        value={list === undefined ? UNKNOWN : count(running)}
        note={
          list === undefined
            ? ""
            : untold > 0
              ? `at least: ${plural(untold, "pod")} not read`
              : pods.length === 0
                ? ""
                : running === pods.length
                  ? "all of them"
                  : `of ${plural(pods.length, "pod")}`
        }
      />
      <Figure
        label="Cost so far"
        of={[listed]}
        value={list !== undefined && pods.length + untold === 0 ? usd(0) : usd(cost)}
        note={cost === undefined ? "" : uncosted > 0 ? `at least: ${plural(uncosted, "pod")} not counted` : "estimated"}
      />
      <Figure
        label="Next removal"
        of={[listed]}
        value={nextIn !== undefined && nextIn <= 0 ? "Due now" : span(nextIn)}
        note={
          undated > 0 ? (
            `${next === undefined ? "" : "or sooner: "}${plural(undated, "time")} cannot be read`
          ) : next !== undefined ? (
            <bdi class="clip">{next.title}</bdi>
          ) : untold > 0 ? (
            "not all were read"
          ) : endless > 0 ? (
            "none has a time"
          ) : (
            ""
          )
        }
      />
      <Figure
        label="Balance"
        value={usd(left)}
        tone={isUsedUp || (lasts !== undefined && lasts < 6) ? "warn" : "plain"}
        note={
          isUsedUp ? "nothing is left" : (foreseen ?? (lasts === undefined ? "" : `lasts ${hours(lasts)}${ifAllRunOn}`))
        }
        of={[balanced]}
      />
    </Figures>
  );
}

function Pods({ data }: { data: Json }) {
  const pods = useMemo(() => podsOf(data), [data]);
  const orders = useMemo(() => ordersOf(data), [data]);
  const [hurry, setHurry] = useState(false);
  const backups = useReading(
    pods.length === 0 ? undefined : { ...BACKUPS, everySeconds: hurry ? HURRY_SECONDS : BACKUPS_SECONDS },
  );
  const backedUp = useMemo(() => backedUpOf(backupsOf(backups.data)), [backups.data]);
  const isUnderWay = useMemo(() => backupsOf(backups.data).some(({ running }) => running), [backups.data]);
  useEffect(() => setHurry(isUnderWay), [isUnderWay]);
  // A pod that is in no backup of a part of the list may have one all the same.
  const allBackups = areAllBackups(backups.data);
  const [search, setSearch] = useState("");
  const wanted = search.trim().toLowerCase();
  const shown = useMemo(
    () =>
      wanted === ""
        ? pods
        : pods.filter((pod) =>
            [pod.name, pod.gpuType, pod.template, pod.status, pod.id, pod.clusterId, pod.keyName].some((word) =>
              word?.toLowerCase().includes(wanted),
            ),
          ),
    [pods, wanted],
  );
  const watched = useMemo(
    () =>
      new Set(
        pods
          .filter((pod) => pod.phase === "running")
          .slice(0, MOST_WATCHED)
          .map((pod) => pod.id),
      ),
    [pods],
  );
  const columns = useMemo(() => columnsOf(backedUp, allBackups, watched), [backedUp, allBackups, watched]);
  const unsettled = records(data.unsettled);
  const unread = unreadRows(data.pods);
  return (
    <>
      {(isNoList(data.unsettled) || unreadRows(data.unsettled) > 0) && (
        <p class="banner warn">Whether some rents are not settled could not be read.</p>
      )}
      {unsettled.map((rent, i) => (
        <div key={i} class="banner warn" role="status">
          <strong>
            <bdi>{text(rent.name) ?? "A rent"}</bdi> is not settled.
          </strong>{" "}
          <span class="foreign">{forPeople(text(rent.next) ?? "")}</span>
        </div>
      ))}
      <Missing state={backups} what="Backups" />
      <Panel
        title="Pods"
        flush
        side={
          pods.length > 6 && (
            <input
              type="search"
              class="search"
              placeholder="Find a pod"
              aria-label="Find a pod"
              value={search}
              onInput={(event) => setSearch(event.currentTarget.value)}
            />
          )
        }
      >
        <Unread rows={unread} flush />
        {pods.length === 0 && untoldPods(data) > 0 ? (
          <Empty title="No pod could be read" icon="warning">
            What runs and bills is not known.
          </Empty>
        ) : pods.length === 0 ? (
          <Empty title="No pod runs, and nothing bills" icon="box">
            Ask your agent for a GPU, or{" "}
            <Button kind="link" onPress={() => show("market")}>
              look at the market
            </Button>
          </Empty>
        ) : shown.length === 0 ? (
          <Empty title="No pod fits that" icon="search" />
        ) : (
          <Table
            label="pods"
            rows={shown}
            columns={columns}
            keyOf={(pod) => pod.key}
            nameOf={(pod) => pod.title}
            open={openPod.value}
            onOpen={(id) => {
              openPod.value = id;
            }}
            detail={(pod) => <PodDetail pod={pod} backups={backups} />}
          />
        )}
        {data.next_cursor !== undefined && (
          <p class="foot quiet small">
            Only the first {count(pods.length)} of {count(number(data.total))} pods are shown.
          </p>
        )}
      </Panel>
      {isNoList(data.orders) && <p class="banner warn">The standing orders could not be read.</p>}
      {orders.length + unreadRows(data.orders) > 0 && <Orders orders={orders} unread={unreadRows(data.orders)} />}
    </>
  );
}
