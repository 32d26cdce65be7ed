// Starts the page: in a conversation when a window is above this one, in a browser otherwise.
import { render } from "preact";
import { App } from "./app";
import { begin } from "./data/readings";
import { learnPolicy } from "./data/server";
import { browser, openSession } from "./host/browser";
import { conversation } from "./host/conversation";
import { ended } from "./host/host";
import { open, restoreView } from "./navigation";
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

const root = document.getElementById("app");
if (root !== null) {
  if (window.parent === window) void inBrowser(root);
  else void inConversation(root);
}

async function inBrowser(root: HTMLElement): Promise<void> {
  restoreChoice();
  const there = await openSession();
  restoreView();
  render(<App host={browser} />, root);
  if (!there) return;
  begin(browser);
  void learnPolicy(browser);
}

async function inConversation(root: HTMLElement): Promise<void> {
  let opened = (): void => undefined;
  const opening = new Promise<void>((resolve) => {
    opened = resolve;
    setTimeout(resolve, OPENING_MS);
  });
  watchPlace();
  const host = conversation(
    window.parent,
    (told) => {
      open(told);
      opened();
    },
    followHost,
  );
  try {
    await host.greet();
    // What it shows need not be read again then.
    render(<Loading rows={5} label="Waiting for what to show" />, root);
    await opening;
  } catch {
    ended.value = "The program that shows this page did not answer it. Ask for your pods again.";
  }
  render(<App host={host} />, root);
  begin(host);
  void learnPolicy(host);
}
