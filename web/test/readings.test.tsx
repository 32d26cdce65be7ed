import { expect, test, vi } from "vitest";
import { fakeHost, settle, showPage, turnTime } from "./fakes";

turnTime();

const MANY = {
  pods: Array.from({ length: 60 }, (_, i) => ({ pod_id: `id-${i}`, name: `pod-${i}`, status: "RUNNING" })),
};

test("all readings together keep within what a page may ask in a minute", async () => {
  const host = fakeHost({ list_pods: MANY });
  await showPage(host);
  for (let minute = 0; minute < 3; minute++) {
    const before = host.calls.length;
    await settle(60);
    expect(host.calls.length - before).toBeLessThanOrEqual(17);
  }
});

test("the list is read again every 15 seconds, more rarely while it fails, and soon once it does not", async () => {
  const host = fakeHost({ list_pods: { pods: [] } });
  const reads = (): number => host.calls.filter(({ tool }) => tool === "list_pods").length;
  await showPage(host);
  await settle(60);
  expect(reads()).toBeGreaterThanOrEqual(4);
  host.answers.list_pods = { ok: false, code: "lium_unreachable", message: "no" };
  await settle(60);
  const failing = reads();
  await settle(240);
  expect(reads() - failing).toBeLessThanOrEqual(3);
});

test("a page that nobody sees, or touches for a quarter of an hour, asks for nothing", async () => {
  const host = fakeHost({ list_pods: { pods: [] } });
  await showPage(host);
  const hidden = vi.spyOn(document, "visibilityState", "get").mockReturnValue("hidden");
  const before = host.calls.length;
  await settle(300);
  expect(host.calls.length).toBe(before);
  hidden.mockRestore();
  window.dispatchEvent(new Event("keydown"));
  await settle(16 * 60);
  const rested = host.calls.length;
  await settle(300);
  expect(host.calls.length).toBe(rested);
  window.dispatchEvent(new Event("keydown"));
  await settle(1);
  expect(host.calls.length).toBeGreaterThan(rested);
});
