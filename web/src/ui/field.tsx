// A field with its name above it. What is typed counts once somebody rests or leaves it.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { number } from "../data/shapes";

const RESTS_MS = 350;

export function Field(props: { title: string; id: string; children: ComponentChildren }) {
  return (
    <div class="field titled">
      <label for={props.id}>{props.title}</label>
      {props.children}
    </div>
  );
}

/** Takes a text, or a number above zero; what is no such number is marked, and counts for nothing. */
export function TextField(props: {
  title: string;
  value: string;
  onValue: (value: string) => void;
  numeric?: boolean;
  hint?: string;
  choices?: readonly string[];
  /** Whether nothing is wrong too. */
  required?: boolean;
}) {
  const id = useId();
  const [typed, setTyped] = useState(props.value);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const read = props.numeric ? number(typed.replace(",", ".")) : undefined;
  const wrong =
    typed.trim() === "" ? props.required === true : props.numeric === true && (read === undefined || read <= 0);
  // What is wrong stays for who typed it, and counts for nothing.
  useEffect(() => {
    if (!wrong || props.value !== "") setTyped(props.value);
  }, [props.value]);
  const give = (value: string): void => {
    clearTimeout(timer.current);
    if (value.trim() !== props.value) props.onValue(value.trim());
  };
  return (
    <Field title={props.title} id={id}>
      <input
        id={id}
        type="text"
        inputMode={props.numeric ? "decimal" : "text"}
        autocomplete="off"
        spellcheck={false}
        placeholder={props.hint}
        value={typed}
        list={props.choices === undefined ? undefined : `${id}-list`}
        aria-invalid={wrong}
        onInput={(event) => {
          const value = event.currentTarget.value;
          setTyped(value);
          clearTimeout(timer.current);
          timer.current = setTimeout(() => give(value), RESTS_MS);
        }}
        onChange={(event) => give(event.currentTarget.value)}
      />
      {props.choices !== undefined && (
        <datalist id={`${id}-list`}>
          {props.choices.map((each) => (
            <option key={each} value={each} />
          ))}
        </datalist>
      )}
    </Field>
  );
}

export function ChoiceField(props: {
  title: string;
  value: string;
  onValue: (value: string) => void;
  choices: readonly (readonly [string, string])[];
}) {
  const id = useId();
  const known = props.choices.some(([value]) => value === props.value);
  return (
    <Field title={props.title} id={id}>
      <select id={id} value={props.value} onChange={(event) => props.onValue(event.currentTarget.value)}>
        {!known && <option value={props.value}>{props.value}</option>}
        {props.choices.map(([value, words]) => (
          <option key={value} value={value}>
            {words}
          </option>
        ))}
      </select>
    </Field>
  );
}

/** A few choices side by side, of which one holds. */
export function Chips<T extends string | number>(props: {
  label: string;
  value: T;
  onValue: (value: T) => void;
  choices: readonly (readonly [T, string])[];
}) {
  return (
    <fieldset class="choices">
      <legend class="unseen">{props.label}</legend>
      {props.choices.map(([value, words]) => (
        <button
          key={value}
          type="button"
          class="chip"
          aria-pressed={props.value === value}
          onClick={() => props.onValue(value)}
        >
          {words}
        </button>
      ))}
    </fieldset>
  );
}
