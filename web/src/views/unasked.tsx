// Where nobody asks again: the settings of the server, or a host that cannot ask, leave it to the form itself.
import { policy } from "../data/server";

export function Unasked() {
  const told = policy.value?.all;
  if (told?.asks_person !== false) return null;
  const why =
    told.confirm === "never"
      ? "by its settings, this server asks nobody"
      : "the program that shows this page cannot ask you";
  return <p class="small warn-text">Nobody asks you again: {why}. What you press here is done at once.</p>;
}
