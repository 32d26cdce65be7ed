// What the server allows: whether it is read-only or on a sandbox, and its limits (the resource lium://policy).
import { signal } from "@preact/signals";
import type { Host } from "../host/host";
import { flag, type Json, list, record } from "./shapes";

export interface Policy {
  readonly readOnly: boolean;
  readonly sandbox: boolean;
  readonly all: Json;
}

/** Undefined where the host lets the page read no resources: then buttons are there, and the server says no. */
export const policy = signal<Policy | undefined>(undefined);

/** Tools that change something, by the toolset that has them. */
const TOOLSETS = {
  rent_pod: "pods",
  remove_pod: "pods",
  schedule_pod_removal: "pods",
  cancel_pod_removal: "pods",
  create_backup: "backups",
} as const;
export type Changing = keyof typeof TOOLSETS;

/** Whether the server offers a tool that changes something, as far as it says; where it does not, there is no button. */
export function isOffered(tool: Changing): boolean {
  const told = policy.value;
  if (told === undefined) return true;
  const { toolsets, allow_tools, deny_tools } = told.all;
  const isLeftOut =
    (Array.isArray(toolsets) && !toolsets.includes(TOOLSETS[tool])) ||
    (Array.isArray(allow_tools) && !allow_tools.includes(tool)) ||
    list(deny_tools).includes(tool);
  return !told.readOnly && !isLeftOut;
}

export async function learnPolicy(host: Host): Promise<void> {
  const told = await host.read("lium://policy");
  if (told === undefined) return;
  const all = record(told);
  policy.value = { readOnly: flag(all.read_only) ?? false, sandbox: flag(all.sandbox) ?? false, all };
}
