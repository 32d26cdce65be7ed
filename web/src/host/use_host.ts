// Hands the host to the parts of the page that need it.
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Host } from "./host";

export const HostContext = createContext<Host | undefined>(undefined);

/** The host that the page talks through. */
export function useHost(): Host {
  const host = useContext(HostContext);
  if (host === undefined) throw new Error("There is no host");
  return host;
}
