// Sentences of the server as people read them. They are written for agents: some tell an agent what to call, or what to
// have its user do, and name fields by which it asks. Who looks at this page calls nothing, and is the user.
import { type Json, text } from "./shapes";

const NOT_FOR_PEOPLE =
  /\b(?:list|get|rent|remove|schedule|cancel|create|quote|run|start|stop|set|restore|reset|upload|download|install|switch|edit|update|resize|attach|detach|reboot)_[a-z_]+\b|^call\b|\bcall (?:it |this )?again\b|\b(?:have|ask|tell) the (?:user|person)\b|\bdry_run\b/i;

/** Fields, as the page names them. What else has such a form may be somebody's name, and stays. */
const FIELDS: readonly (readonly [RegExp, string])[] = [
  [/\bmax_usd_per_hour=([\d.]+)/g, "the price of $$$1 an hour that was agreed to"],
  [/\bmax_usd_per_gpu_hour=([\d.]+)/g, "the ceiling of $$$1 for a GPU and hour"],
  [/\bmax_total_usd=([\d.]+)/g, "the most total of $$$1"],
  [/\bbudget_usd\b/g, "the budget"],
  [/\bbudget_since\b/g, "the day from which the budget counts"],
  [/\bmax_burn_per_hour_usd\b/g, "the limit of all pods together"],
  [/\bmax_price_per_hour_usd\b/g, "the limit of one pod's price"],
  [/\bmax_usd_per_(?:gpu_)?hour\b/g, "the highest price"],
  [/\bmax_pods\b/g, "the limit of pods at once"],
  [/\bmax_hours\b/g, "the limit of a pod's life"],
  [/\bmax_total_usd\b/g, "the most total"],
  [/\ballow_gpu_types\b/g, "the allowed GPU types"],
  [/\ballow_countries\b/g, "the allowed countries"],
  [/\ballow_templates\b/g, "the allowed templates"],
  [/\btotal_usd\b/g, "the total"],
  [/\bexecutor_id\b/g, "the node's id"],
  [/\bhours_from_now\b/g, "the hours from now"],
];

const SENTENCES = /(?<=[.!?])\s+(?=["A-Z])/;

/** The same without what is for an agent; where nothing else was said, as it was. */
export function forPeople(said: string): string {
  const kept = said.split(SENTENCES).filter((sentence) => !NOT_FOR_PEOPLE.test(sentence));
  const whole = kept.length === 0 ? said : kept.join(" ");
  return FIELDS.reduce((words, [field, name]) => words.replace(field, name), whole);
}

/** Of what only reads nobody thinks that it changed something. */
export function ofReading(said: string): string {
  const rest = said
    .split(SENTENCES)
    .filter((sentence) => !/^Nothing was changed\b|\brepeating a change\b/.test(sentence))
    .join(" ");
  return forPeople(rest === "" ? said : rest);
}

/** What an answer lacks, in the server's words. */
export function incompleteOf(data: Json | undefined): string | undefined {
  const said = text(data?.incomplete);
  return said === undefined ? undefined : forPeople(said);
}
