// Questions of the server to the person (elicitation): one at a time, and what is not answered is not agreed to.
import { signal } from "@preact/signals";
import { flag, type Json, lines, list, number, record, text } from "../data/shapes";
import { inTwoWays } from "../data/typed";

/** A field of a question, by its schema. */
export interface Field {
  readonly name: string;
  readonly kind: "yes_or_no" | "text" | "number" | "choice";
  readonly label: string;
  readonly help: string | undefined;
  readonly required: boolean;
  readonly choices: readonly { readonly value: string; readonly label: string }[];
}

export interface Asked {
  /** Tells it from others, also from one of the same words. */
  readonly id: number;
  readonly message: string;
  readonly fields: readonly Field[];
  readonly settle: (answer: Json) => void;
}

/** The questions that wait, the first of which is shown. */
export const asked = signal<readonly Asked[]>([]);

let nextId = 1;

/** Shows a question, and returns the answer as the protocol wants it. */
export function askPerson(request: Json): Promise<Json> {
  const params = record(request.params);
  if (request.method !== "elicitation/create" || (params.mode !== undefined && params.mode !== "form"))
    return Promise.resolve({ action: "cancel" });
  return new Promise((resolve) => {
    const question: Asked = {
      id: nextId++,
      message: lines(params.message) ?? "The server asks whether to go on, and does not say what about.",
      fields: fieldsOf(record(params.requestedSchema)),
      settle(answer) {
        asked.value = asked.value.filter((other) => other !== question);
        resolve(answer);
      },
    };
    asked.value = [...asked.value, question];
  });
}

export function fieldsOf(schema: Json): readonly Field[] {
  const required = list(schema.required);
  return Object.entries(record(schema.properties)).map(([name, given]) => {
    const field = record(given);
    const labels = list(field.enumNames);
    const choices = Array.isArray(field.oneOf)
      ? field.oneOf
          .map(record)
          .map((each) => ({ value: String(each.const), label: text(each.title) ?? String(each.const) }))
      : list(field.enum).map((value, i) => ({ value: String(value), label: text(labels[i]) ?? String(value) }));
    return {
      name,
      kind: choices.length > 0 ? "choice" : kindOf(text(field.type)),
      label: text(field.title) ?? name,
      help: text(field.description),
      required: required.includes(name),
      choices,
    };
  });
}

function kindOf(type: string | undefined): Field["kind"] {
  if (type === "boolean") return "yes_or_no";
  return type === "number" || type === "integer" ? "number" : "text";
}

/** What was filled in, or undefined where something required is missing. */
export function contentOf(fields: readonly Field[], filled: Json): Json | undefined {
  const content: Record<string, unknown> = {};
  for (const field of fields) {
    const value = filled[field.name];
    const read =
      field.kind === "yes_or_no"
        ? flag(value)
        : field.kind === "number"
          ? number(value) !== undefined && inTwoWays(String(value)) === undefined
            ? number(value)
            : undefined
          : value === ""
            ? undefined
            : value;
    if (read === undefined && field.required) return undefined;
    if (read !== undefined) content[field.name] = read;
  }
  return content;
}
