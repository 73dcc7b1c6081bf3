import { expect, it } from "vitest";
import { formatCount, plural } from "./counts.ts";

it("groups counts", () => {
  expect([0, 999, 1000, 12_345, 1_234_567].map(formatCount)).toEqual(["0", "999", "1,000", "12,345", "1,234,567"]);
});

it("names what is counted", () => {
  expect([plural(1, "note"), plural(2000, "note")]).toEqual(["1 note", "2,000 notes"]);
  expect([plural(1, "entry", "entries"), plural(0, "entry", "entries")]).toEqual(["1 entry", "0 entries"]);
});
