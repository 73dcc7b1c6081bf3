import { expect, test } from "vitest";
import { Model } from "./model.ts";

function fated(model: Model, fate: "done" | "failed" | "unknown", values: Record<string, string>) {
  const writes = model.intend(1, new Map(Object.entries(values)));
  for (const write of writes) write.fate = fate;
  return writes;
}

test("what was done is seen, what failed is not, what is not known may be", () => {
  for (const [fate, seen, isRight] of [
    ["done", "new", true],
    ["done", "old", false],
    ["failed", "new", false],
    ["failed", "old", true],
    ["unknown", "new", true],
    ["unknown", "old", true],
    ["unknown", "other", false],
  ] as const) {
    const model = new Model();
    fated(model, "done", { x: "old" });
    model.judge();
    model.settle(new Map([["x", "old"]]));
    fated(model, fate, { x: "new" });
    model.judge();
    const settle = () => model.settle(new Map([["x", seen]]));
    if (isRight) settle();
    else expect(settle).toThrow("x is");
  }
});

test("a read sees what was there before or came meanwhile", () => {
  const model = new Model();
  fated(model, "unknown", { x: "new" });
  model.saw({ operation: 2, name: "x", value: "absent" });
  model.saw({ operation: 3, name: "x", value: "new" });
  model.judge();
  model.settle(new Map([["x", "new"]]));
  model.saw({ operation: 4, name: "x", value: "absent" });
  expect(() => model.judge()).toThrow("operation 4 saw absent");
});

test("of a transaction, all or nothing", () => {
  const half = () => {
    const model = new Model();
    fated(model, "unknown", { x: "new", y: "new" });
    model.judge();
    model.settle(
      new Map([
        ["x", "new"],
        ["y", "absent"],
      ]),
    );
  };
  expect(half).toThrow("1 of 2 writes happened");
});

test("what a transaction would not have changed says nothing of it", () => {
  const model = new Model();
  fated(model, "unknown", { x: "new", y: "absent" });
  model.judge();
  model.settle(
    new Map([
      ["x", "absent"],
      ["y", "absent"],
    ]),
  );
});

test("a transaction that was rolled back is not what others have written", () => {
  const model = new Model();
  fated(model, "failed", { x: "new", y: "new" });
  fated(model, "done", { x: "new" });
  model.judge();
  model.settle(
    new Map([
      ["x", "new"],
      ["y", "absent"],
    ]),
  );
});

test("of two publications the one with the higher version is there", () => {
  const model = new Model();
  for (const [value, version] of [
    ["first", 1],
    ["second", 2],
  ] as const) {
    for (const write of fated(model, "done", { x: value })) write.version = version;
  }
  model.judge();
  expect(() => model.settle(new Map([["x", "first"]]))).toThrow("x is first");
});
