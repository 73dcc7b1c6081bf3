import { Readable } from "node:stream";
import type { BodySource, PhysicalKey } from "../../src/objects/index.ts";
import { createRandom } from "./random.ts";

/** What the victim does, and its examiner expects: both know it from here. */
export interface HistoryEntry {
  readonly operation: "put" | "delete";
  readonly key: PhysicalKey;
}

/** Puts, three of them into one fan-out directory, and deletes of some that were put. */
export function localfsHistory(): readonly HistoryEntry[] {
  const key = (start: string) => start.padEnd(32, "0") as PhysicalKey;
  const [a, b, c, d] = [key("4f1"), key("4f2"), key("a01"), key("4f3")] as const;
  return [
    { operation: "put", key: a },
    { operation: "put", key: b },
    { operation: "delete", key: a },
    { operation: "put", key: c },
    { operation: "put", key: d },
    { operation: "delete", key: c },
  ];
}

/** The bytes of a key: several batches for some, few or none for others. */
export function contentOf(key: PhysicalKey): Buffer {
  const number = Number.parseInt(key.slice(0, 4), 16);
  return createRandom(number).bytes([1_300_000, 70_000, 0][number % 3] as number);
}

/** The body of a key; `halfway` is called in its middle. */
export function bodyOf(key: PhysicalKey, halfway: () => void = () => {}): BodySource {
  const content = contentOf(key);
  const pieces = function* () {
    const middle = content.length >> 1;
    yield content.subarray(0, middle);
    halfway();
    yield content.subarray(middle);
  };
  return { open: async () => Readable.from(pieces(), { highWaterMark: 1 }), sizeBytes: content.length };
}
