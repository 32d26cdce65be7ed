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
import "./styles/frame.css";
import { followHost, restoreChoice } from "./theme";

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
  const host = conversation(window.parent, open, followHost);
  try {
    await host.greet();
  } catch {
    ended.value = "The program that shows this page did not answer it. Ask for your pods again.";
  }
  render(<App host={host} />, root);
  begin(host);
  void learnPolicy(host);
}
