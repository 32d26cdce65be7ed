// What the server allows: whether it is read-only or on a sandbox, and its limits (the resource lium://policy).
import { signal } from "@preact/signals";
import type { Host } from "../host/host";
import { flag, type Json, record } from "./shapes";

export interface Policy {
  readonly readOnly: boolean;
  readonly sandbox: boolean;
  readonly all: Json;
}

/** Undefined where the host lets the page read no resources: then buttons are there, and the server says no. */
export const policy = signal<Policy | undefined>(undefined);

export async function learnPolicy(host: Host): Promise<void> {
  const told = await host.read("lium://policy");
  if (told === undefined) return;
  const all = record(told);
  policy.value = { readOnly: flag(all.read_only) ?? false, sandbox: flag(all.sandbox) ?? false, all };
}
