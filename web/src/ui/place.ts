// A host shows this page in a frame as high as the page, of which people see a part: what floats stands where they are.

let lastY = 0;

/** Notes where somebody presses or moves by keyboard. */
export function watchPlace(): void {
  window.addEventListener("pointerdown", (event) => (lastY = event.clientY), { capture: true, passive: true });
  window.addEventListener(
    "focusin",
    (event) => {
      const box = event.target instanceof Element ? event.target.getBoundingClientRect() : undefined;
      if (box !== undefined && box.height > 0 && box.height < 200) lastY = box.top;
    },
    { passive: true },
  );
}

/** Puts what floats near the last press; in a browser's own window it stays where its style puts it. */
export function placeNear(floating: HTMLElement | null): void {
  if (floating === null || document.documentElement.dataset.host === undefined) return;
  const most = Math.max(8, window.innerHeight - floating.offsetHeight - 8);
  floating.style.top = `${Math.min(most, Math.max(8, lastY - floating.offsetHeight / 2))}px`;
  floating.style.bottom = "auto";
  floating.style.marginBlock = "0";
}
