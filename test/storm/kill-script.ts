/** What a victim does, and how it tells. */
import type { SeededRandom } from "../fault/random.ts";

export type Deed =
  | { readonly kind: "put"; readonly keys: readonly string[]; readonly serial: number; readonly isLarge: boolean }
  | { readonly kind: "retire"; readonly key: string }
  | { readonly kind: "reap" }
  | { readonly kind: "scrub" };

/** A line of a victim's output. */
export type Line =
  | { readonly begin: Deed }
  /** What each object that the deed changes will be. */
  | { readonly intend: Readonly<Record<string, string>> }
  | { readonly done: true }
  | { readonly step: string; readonly nth: number };

const account = "a";
const keys = ["one", "two", "three", "four"] as const;
/** Objects of this bucket lie in the other backend. */
const archiveBucket = "analysis_archive";
const buckets = ["documents", archiveBucket] as const;

/** A name is `account/bucket/key`. */
const names: readonly string[] = buckets.flatMap((bucket) => keys.map((key) => `${account}/${bucket}/${key}`));

/** Each kind at least once in ten, in an order of the seed's. */
export function deedsOf(random: SeededRandom, firstSerial: number): readonly Deed[] {
  const kinds = ["put", "put", "put", "put", "retire", "reap", "reap", "scrub", "put", "retire"] as const;
  const shuffled = kinds.map((kind) => ({ kind, rank: random.next() })).toSorted((one, other) => one.rank - other.rank);
  return shuffled.map(({ kind }, index): Deed => {
    const key = random.pick(names);
    if (kind === "retire") return { kind, key };
    if (kind !== "put") return { kind };
    const others = random.next() < 0.3 ? [random.pick(names), random.pick(names)] : [];
    return {
      kind,
      keys: [...new Set([key, ...others])],
      serial: firstSerial + 10 * index,
      isLarge: random.next() < 0.2,
    };
  });
}
