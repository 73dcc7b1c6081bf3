import { describe, expect, it } from "vitest";
import { StowageError } from "../errors/index.ts";
import { createCall } from "../runtime/index.ts";
import { Budget, Turns } from "./turns.ts";

/** Lets everything that can go on go on. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Takes, and notes when it has it. */
function taker(take: (call: ReturnType<typeof createCall>) => Promise<Disposable>, signal?: AbortSignal) {
  const call = createCall(signal === undefined ? {} : { signal });
  const state: { held?: Disposable; error?: unknown } = {};
  void take(call).then(
    (held) => {
      state.held = held;
    },
    (error: unknown) => {
      state.error = error;
    },
  );
  return state;
}

describe("Budget", () => {
  it("serves in the order of asking, a large wish before small ones that came later", async () => {
    const budget = new Budget(3);
    const [first, large, small] = [2, 3, 1].map((amount) => taker((call) => budget.take(call, amount)));
    await settle();
    expect([first, large, small].map((state) => state?.held !== undefined)).toEqual([true, false, false]);
    first?.held?.[Symbol.dispose]();
    await settle();
    expect([large, small].map((state) => state?.held !== undefined)).toEqual([true, false]);
    large?.held?.[Symbol.dispose]();
    large?.held?.[Symbol.dispose]();
    await settle();
    expect(small?.held).toBeDefined();
    expect(budget.isIdle).toBe(false);
    small?.held?.[Symbol.dispose]();
    expect(budget.isIdle).toBe(true);
  });

  it("gives all of it to a wish that is larger", async () => {
    const budget = new Budget(3);
    using _ = await budget.take(createCall(), 100);
    const other = taker((call) => budget.take(call, 1));
    await settle();
    expect(other.held).toBeUndefined();
  });

  it("lets go of who is aborted, and serves those behind", async () => {
    const budget = new Budget(2);
    const held = await budget.take(createCall(), 1);
    const abort = new AbortController();
    const large = taker((call) => budget.take(call, 2), abort.signal);
    const small = taker((call) => budget.take(call, 1));
    await settle();
    expect(small.held).toBeUndefined();
    abort.abort(new StowageError("INPUT_INTERRUPTED", { what: "test" }));
    await settle();
    expect(large.error).toMatchObject({ code: "INPUT_INTERRUPTED" });
    expect(small.held).toBeDefined();
    held[Symbol.dispose]();
    small.held?.[Symbol.dispose]();
    expect(budget.isIdle).toBe(true);
    await expect(budget.take(createCall({ signal: abort.signal }))).rejects.toMatchObject({
      code: "INPUT_INTERRUPTED",
    });
  });
});

describe("Turns", () => {
  it("are taken one after the other for one thing, side by side for several", async () => {
    const turns = new Turns();
    const [first, second, other] = ["a", "a", "b"].map((name) => taker((call) => turns.take(name, call)));
    await settle();
    expect([first, second, other].map((state) => state?.held !== undefined)).toEqual([true, false, true]);
    first?.held?.[Symbol.dispose]();
    await settle();
    expect(second?.held).toBeDefined();
    const third = taker((call) => turns.take("a", call));
    await settle();
    expect(third.held).toBeUndefined();
  });

  it("keep nothing of a thing that nobody wants any more", async () => {
    const turns = new Turns();
    const abort = new AbortController();
    const held = await turns.take("a", createCall());
    const waiting = taker((call) => turns.take("a", call), abort.signal);
    abort.abort(new StowageError("INPUT_INTERRUPTED", {}));
    await settle();
    expect(waiting.error).toBeDefined();
    held[Symbol.dispose]();
    expect(turns.size).toBe(0);
  });
});
