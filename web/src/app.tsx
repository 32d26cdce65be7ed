// The page: its head, the view that is shown, and what floats above it.
import { useComputed } from "@preact/signals";
import { Component, type ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { dismiss, notices, underWay } from "./data/actions";
import { asleep, cutOff, here, oldest, readBefore, refresh } from "./data/readings";
import { policy } from "./data/server";
import { span } from "./format";
import { controls, type Ended, ended, filling, type Host, muted, NO_CALLS } from "./host/host";
import { asked } from "./host/questions";
import { HostContext, useHost } from "./host/use_host";
import { failedOpening, show, VIEWS, type View, view } from "./navigation";
import { type Choice, choice, choose } from "./theme";
import { Icon } from "./ui/icons";
import { Badge, Button, CutOff, Empty, IconButton, Trouble } from "./ui/parts";
import { placeNear } from "./ui/place";
import { Questions } from "./ui/question";
import { MarketView } from "./views/market/market_view";
import { MoneyView } from "./views/money/money_view";
import { PodsView } from "./views/pods/pods_view";
import { SandboxSheet } from "./views/sandbox/sandbox_sheet";

const TITLES: Readonly<Record<View, string>> = { pods: "Pods", market: "Market", money: "Money" };

export function App({ host }: { host: Host }) {
  return (
    <HostContext.Provider value={host}>
      <div class="frame">
        <Head inBrowser={host.kind === "browser"} />
        <main>{ended.value === undefined ? <Shown name={view.value} /> : <Over what={ended.value} />}</main>
      </div>
      <Notices />
      <Questions />
    </HostContext.Provider>
  );
}

function Shown({ name }: { name: View }) {
  useEffect(() => {
    document.title = `${TITLES[name]} · Lium`;
  }, [name]);
  const View = { pods: PodsView, market: MarketView, money: MoneyView }[name];
  return (
    <>
      <h1 class="unseen">{TITLES[name]}</h1>
      {muted.value ? (
        <p class="banner small">{NO_CALLS.message}</p>
      ) : (
        cutOff.value.map((why) => (
          <CutOff
            key={`${why.code} ${why.message}`}
            failure={why}
            since={readBefore(why)}
            again={() => void refresh()}
          />
        ))
      )}
      {failedOpening.value !== undefined && <Trouble failure={failedOpening.value} />}
      <Guard key={name}>
        <View />
      </Guard>
    </>
  );
}

/** Keeps what fails to be drawn to itself: the rest of the page stays. */
class Guard extends Component<{ children: ComponentChildren }, { failed: boolean }> {
  override state = { failed: false };

  static override getDerivedStateFromError(): { failed: boolean } {
    return { failed: true };
  }

  override render() {
    if (!this.state.failed) return this.props.children;
    return (
      <Trouble
        failure={{
          code: "not_drawn",
          message: "What was read could not be drawn: it may be of a shape that this page does not know.",
        }}
        again={() => this.setState({ failed: false })}
      />
    );
  }
}

function Over({ what }: { what: Ended }) {
  return (
    <Empty title={what.title} icon="clock">
      <span class="foreign">{what.message}</span>
    </Empty>
  );
}

function Head({ inBrowser }: { inBrowser: boolean }) {
  return (
    <header class="head">
      {inBrowser && (
        <span class="brand">
          <svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true">
            <rect x="2" y="3" width="16" height="4" rx="1.5" />
            <rect x="2" y="8.5" width="11" height="4" rx="1.5" opacity=".7" />
            <rect x="2" y="14" width="6" height="4" rx="1.5" opacity=".45" />
          </svg>
          Lium
        </span>
      )}
      {ended.value === undefined && (
        <nav aria-label="Views">
          {VIEWS.filter((name) => !muted.value || name === view.value).map((name) => (
            <button
              key={name}
              type="button"
              aria-current={view.value === name ? "page" : undefined}
              onClick={() => show(name)}
            >
              {TITLES[name]}
            </button>
          ))}
        </nav>
      )}
      <div class="side">
        {policy.value?.sandbox && <Sandbox />}
        {policy.value?.readOnly && <Badge>Read-only</Badge>}
        {ended.value === undefined && <Freshness />}
        {inBrowser && <ThemeButton />}
        {filling.value !== undefined && <FillButton />}
      </div>
    </header>
  );
}

/** Says that nothing here is real, and opens its clock and faults where the page may turn them. */
function Sandbox() {
  const [open, setOpen] = useState(false);
  const at = controls.value;
  if (at === undefined) return <Badge tone="warn">Sandbox</Badge>;
  return (
    <>
      <button type="button" class="badge warn" aria-haspopup="dialog" onClick={() => setOpen(true)}>
        Sandbox
        <Icon name="sliders" />
      </button>
      {open && <SandboxSheet at={at} close={() => setOpen(false)} />}
    </>
  );
}

/** How old the oldest of what is shown is, and the button that reads it anew. */
function Freshness() {
  const [busy, setBusy] = useState(false);
  // Read in any case: by it the words are made anew each second.
  const at = here.value;
  const { at: since, isWhole } = oldest();
  const age = since === undefined ? undefined : Math.max(0, Math.round((at - since) / 1000));
  const words = age === undefined ? "" : age < 3 && isWhole ? "Up to date" : age < 3 ? "Just now" : `${span(age)} ago`;
  const again = async (): Promise<void> => {
    setBusy(true);
    await refresh();
    setBusy(false);
  };
  return (
    <>
      <span
        class={`freshness small ${isWhole ? "quiet" : "warn-text"}`}
        title={
          asleep.value
            ? "Nobody was here for a while. Touch the page, and it reads on."
            : "When the oldest of what is shown here was read"
        }
      >
        {[asleep.value ? "Resting" : words, isWhole ? "" : "not all is read"].filter(Boolean).join(", ")}
      </span>
      {!muted.value && <IconButton icon="refresh" label="Read anew" onPress={again} busy={busy} />}
    </>
  );
}

function FillButton() {
  const host = useHost();
  const whole = filling.value === true;
  return (
    <IconButton
      icon={whole ? "shrink" : "grow"}
      label={whole ? "Back into the conversation" : "Fill the window"}
      onPress={() => host.fill(!whole)}
    />
  );
}

const NEXT: Readonly<Record<Choice, Choice>> = { system: "light", light: "dark", dark: "system" };
const ICONS = { system: "system", light: "sun", dark: "moon" } as const;

function ThemeButton() {
  const now = useComputed(() => choice.value).value;
  return (
    <IconButton
      icon={ICONS[now]}
      label={`Colours: ${now === "system" ? "as the system" : now}. Change`}
      onPress={() => choose(NEXT[now])}
    />
  );
}

function Notices() {
  const box = useRef<HTMLDivElement>(null);
  const [isWhole, setIsWhole] = useState(false);
  const all = notices.value;
  // They lie above what people press next: the newest stands, the others wait behind it.
  const shown = isWhole ? all : all.slice(-1);
  const behind = all.length - shown.length;
  // While the server asks, nothing is done yet.
  const running = asked.value.length > 0 ? [] : [...underWay.value];
  useLayoutEffect(() => {
    placeNear(box.current);
    // So much is left free below, so that the last row can be brought above them.
    document.documentElement.style.setProperty("--notices", `${box.current?.offsetHeight ?? 0}px`);
    if (all.length < 2) setIsWhole(false);
  }, [all, isWhole, running.length]);
  return (
    <div ref={box} class="notices" role="status">
      {running.map(([key, title]) => (
        <div key={key} class="notice under-way">
          <p class="foreign">{title}: under way…</p>
        </div>
      ))}
      {shown.map((notice) => (
        <div key={notice.id} class={`notice ${notice.kind}`}>
          <p class="foreign">{notice.message}</p>
          {behind > 0 && (
            <Button kind="link" onPress={() => setIsWhole(true)}>
              {behind} more
            </Button>
          )}
          <Button kind="link" label="Dismiss this message" onPress={() => dismiss(notice.id)}>
            Dismiss
          </Button>
        </div>
      ))}
    </div>
  );
}
