// A field with its name above it. What is typed counts once somebody rests or leaves it.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { above, inTwoWays } from "../data/typed";
import { count } from "../format";

const RESTS_MS = 350;

export function Field(props: { title: string; id: string; children: ComponentChildren }) {
  return (
    <div class="field titled">
      <label for={props.id}>{props.title}</label>
      {props.children}
    </div>
  );
}

/** Takes a text, or a number above zero; what is no such number is said, and counts for nothing. */
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
  // What is in use came from the page or the model, and is read in one way.
  const isInUse = typed.trim() === props.value;
  const wrong =
    typed.trim() === "" ? props.required === true : props.numeric === true && !isInUse && above(typed) === undefined;
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
        aria-describedby={wrong ? `${id}-wrong` : undefined}
        onInput={(event) => {
          const value = event.currentTarget.value;
          setTyped(value);
          clearTimeout(timer.current);
          timer.current = setTimeout(() => give(value), RESTS_MS);
        }}
        onChange={(event) => give(event.currentTarget.value)}
      />
      {wrong && (
        <span id={`${id}-wrong`} class="small bad-text" role="status">
          {typed.trim() === "" ? "It needs one." : `Not used: ${inTwoWays(typed) ?? "it takes a number above 0."}`}
        </span>
      )}
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

/** A number of hours that is not among the choices; what cannot be is said, and is given on as undefined. */
export function OwnHours(props: { most: number; onValue: (hours: number | undefined) => void }) {
  const id = useId();
  const [typed, setTyped] = useState("");
  const hoursOf = (value: string): number | undefined => {
    const read = above(value);
    return read !== undefined && read <= props.most ? read : undefined;
  };
  const wrong = typed.trim() !== "" && hoursOf(typed) === undefined;
  return (
    <>
      <label class="own">
        <span class="unseen">Other number of hours</span>
        <input
          type="text"
          inputMode="decimal"
          autocomplete="off"
          placeholder="other"
          aria-invalid={wrong}
          aria-describedby={wrong ? `${id}-wrong` : undefined}
          onInput={(event) => {
            setTyped(event.currentTarget.value);
            props.onValue(hoursOf(event.currentTarget.value));
          }}
        />
        <span class="quiet">h</span>
      </label>
      {wrong && (
        <span id={`${id}-wrong`} class="small bad-text" role="status">
          {inTwoWays(typed) ?? `Hours are a number above 0, and at most ${count(props.most)}.`}
        </span>
      )}
    </>
  );
}
