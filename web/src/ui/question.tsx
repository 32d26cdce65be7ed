// A question of the server, as a dialog: all its text as text, fields by its schema, and no answer chosen before.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Json } from "../data/shapes";
import { asked, contentOf, type Asked as Question } from "../host/questions";
import { Button } from "./parts";

export function Questions() {
  const question = asked.value[0];
  return question === undefined ? null : <Dialog key={question.id} question={question} />;
}

function Dialog({ question }: { question: Question }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [filled, setFilled] = useState<Json>({});
  useEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  const [only] = question.fields;
  // One thing to agree to: yes and no are the buttons.
  const plain = question.fields.length === 1 && only?.kind === "yes_or_no" && only.required;
  const content = plain ? { [only.name]: true } : contentOf(question.fields, filled);
  const set = (name: string, value: unknown): void => setFilled((was) => ({ ...was, [name]: value }));
  return (
    <dialog
      ref={dialog}
      class="question"
      aria-labelledby="question-title"
      aria-describedby="question-text"
      onCancel={(event) => {
        event.preventDefault();
        question.settle({ action: "cancel" });
      }}
    >
      <h2 id="question-title">The server asks you</h2>
      <p id="question-text" class="foreign said">
        {question.message}
      </p>
      {!plain &&
        question.fields.map((field) => (
          <label key={field.name} class="field" htmlFor={`field-${field.name}`}>
            <span>
              <bdi>{field.label}</bdi>
              {!field.required && <span class="quiet"> (may be left out)</span>}
            </span>
            {field.kind === "yes_or_no" ? (
              <input
                type="checkbox"
                id={`field-${field.name}`}
                onChange={(e) => set(field.name, e.currentTarget.checked)}
              />
            ) : field.kind === "choice" ? (
              <select id={`field-${field.name}`} onChange={(e) => set(field.name, e.currentTarget.value)}>
                <option value="">Choose…</option>
                {field.choices.map((each) => (
                  <option key={each.value} value={each.value}>
                    {each.label}
                  </option>
                ))}
              </select>
            ) : (
              <input
                type="text"
                id={`field-${field.name}`}
                inputMode={field.kind === "number" ? "decimal" : "text"}
                onInput={(e) => set(field.name, e.currentTarget.value)}
              />
            )}
            {field.help !== undefined && <span class="quiet small foreign">{field.help}</span>}
          </label>
        ))}
      <footer>
        {/* The first button has the focus: Enter by habit agrees to nothing. */}
        <Button onPress={() => question.settle({ action: "decline" })}>No</Button>
        <Button
          kind="main"
          disabled={content === undefined}
          onPress={() => content !== undefined && question.settle({ action: "accept", content })}
        >
          {plain ? "Yes" : "Answer"}
        </Button>
      </footer>
    </dialog>
  );
}
