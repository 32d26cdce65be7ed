// Light or dark: as the host says, as the person chose here, or as the system is set; and the host's own colours.
import { signal } from "@preact/signals";
import { type Json, record } from "./data/shapes";

export type Choice = "system" | "light" | "dark";

const KEPT_AS = "lium-theme";
/** Of a host's variables, those that this page knows what to do with. */
const TAKEN = /^--(color-(background|text|border|ring)-[a-z]+|font-(sans|mono)|border-radius-[a-z]+)$/;
/** A value that would load something is none of these. */
const PLAIN = /^[\w\s#%.,()"'/+*-]{1,400}$/;

export const choice = signal<Choice>("system");

export function restoreChoice(): void {
  const kept = keptChoice();
  if (kept === "light" || kept === "dark") choose(kept);
}

export function choose(theme: Choice): void {
  choice.value = theme;
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(KEPT_AS, theme);
  } catch {
    // A page without storage keeps it while it is open.
  }
}

/** Takes theme and colours of the host that shows the page. */
export function followHost(context: Json): void {
  const root = document.documentElement;
  root.dataset.host = "";
  if (context.theme === "light" || context.theme === "dark") root.dataset.theme = context.theme;
  const given = record(record(context.styles).variables);
  const usable = Object.entries(given).filter(
    (pair): pair is [string, string] =>
      TAKEN.test(pair[0]) && typeof pair[1] === "string" && PLAIN.test(pair[1]) && !/url\(|image/i.test(pair[1]),
  );
  const names = new Set(usable.map(([name]) => name));
  // Text on a ground of which only one is the host's may not be readable.
  const both = names.has("--color-background-primary") && names.has("--color-text-primary");
  for (const [name, value] of usable) if (both || !name.startsWith("--color-")) root.style.setProperty(name, value);
}

function keptChoice(): string | null {
  try {
    return localStorage.getItem(KEPT_AS);
  } catch {
    return null;
  }
}
