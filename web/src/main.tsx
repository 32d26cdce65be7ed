// Starts the page: in a conversation when a window is above this one, in a browser otherwise.
import { render } from "preact";
import { App } from "./app";
import { say } from "./data/actions";
import { begin, refresh } from "./data/readings";
import { learnPolicy } from "./data/server";
import { browser, openSession, takeToken } from "./host/browser";
import { conversation } from "./host/conversation";
import { type Ended, ended } from "./host/host";
import { nameView, open, restoreView } from "./navigation";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/table.css";
import "./styles/charts.css";
import "./styles/fields.css";
import "./styles/views.css";
import "./styles/frame.css";
import { followHost, restoreChoice } from "./theme";
import { Loading } from "./ui/parts";
import { watchPlace } from "./ui/place";

/** The result that opened the page comes right after the greeting, if at all. */
const OPENING_MS = 5000;
const SILENT: Ended = {
  title: "The program that shows this page does not answer it",
  message:
    "Ask for your pods again in the conversation, or run lium-mcp dashboard in a terminal to see them in a browser.",
};
/** A host that says nothing so long shows no page of ours; it may all the same begin to. */
const SILENT_MS = 6000;

const root = document.getElementById("app");
if (root !== null) {
  if (window.parent === window) void inBrowser(root);
  else void inConversation(root);
}

async function inBrowser(root: HTMLElement): Promise<void> {
  restoreChoice();
  restoreView();
  const refused = await openSession(takeToken());
  render(<App host={browser} />, root);
  sayThatItGoesOn(refused);
  // An address that is opened in this tab changes what stands behind the # alone: nothing is loaded then.
  window.addEventListener("hashchange", () => void readAddress());
  begin(browser);
  if (ended.value === undefined) void learnPolicy(browser);
}

async function readAddress(): Promise<void> {
  const once = takeToken();
  if (once === undefined) return restoreView();
  nameView();
  const refused = await openSession(once);
  sayThatItGoesOn(refused);
  if (ended.value === undefined) await Promise.all([learnPolicy(browser), refresh()]);
}

function sayThatItGoesOn(refused: string | undefined): void {
  if (refused !== undefined && ended.value === undefined)
    say("failed", `${refused} This tab goes on with the session that it has.`);
}

async function inConversation(root: HTMLElement): Promise<void> {
  let opened = (): void => undefined;
  const opening = new Promise<void>((resolve) => {
    opened = resolve;
  });
  watchPlace();
  const host = conversation(
    window.parent,
    (told) => {
      open(told);
      if (told.answer !== undefined) opened();
    },
    followHost,
  );
  const draw = (): void => render(<App host={host} />, root);
  render(<Loading rows={5} label="Waiting for what to show" />, root);
  const silence = setTimeout(() => {
    ended.value = SILENT;
    draw();
  }, SILENT_MS);
  const greeted = host.greet().then(() => {
    clearTimeout(silence);
    ended.value = undefined;
  });
  greeted.catch(() => undefined);
  // What it shows need not be read again then. Some hosts bring that before they greet, or without.
  await Promise.race([opening, greeted.then(() => Promise.race([opening, passing(OPENING_MS)])).catch(() => opening)]);
  clearTimeout(silence);
  ended.value = undefined;
  draw();
  begin(host);
  void greeted.then(() => learnPolicy(host)).catch(() => undefined);
}

function passing(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
