// A small form above the page. Escape and a press beside it close it, and nothing was done.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { placeNear } from "./place";

export function Sheet(props: { title: string; about: string; close: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    placeNear(dialog.current);
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape does the same by keyboard.
    <dialog
      ref={dialog}
      class="sheet"
      aria-label={props.title}
      onCancel={(event) => {
        event.preventDefault();
        props.close();
      }}
      onClick={(event) => {
        event.stopPropagation();
        if (event.target === dialog.current) props.close();
      }}
    >
      <div class="inside">
        <h2>{props.title}</h2>
        <bdi class="clip quiet" title={props.about}>
          {props.about}
        </bdi>
        {props.children}
      </div>
    </dialog>
  );
}
