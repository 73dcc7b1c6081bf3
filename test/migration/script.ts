import type { SeededRandom } from "../fault/random.ts";
import type { Fate } from "./life.ts";
import type { Place } from "./place.ts";

/** A migration as it is ordered. */
export interface Order {
  readonly from: Place;
  readonly to: Place;
  /** Of the destination's configuration. */
  readonly archive: Place | undefined;
  readonly keepsSources: boolean;
  readonly isOnline: boolean;
  readonly verify: "readback" | "checksum";
  readonly buckets: readonly string[];
  readonly account: string | undefined;
  readonly toAnalysisArchive: boolean;
  readonly concurrency: number;
}

/** One life of a process that migrates. */
export interface LifePlan {
  /** `order`: as ordered, which goes on with what was begun. Else by number, the first that is not ended. */
  readonly command: "order" | "resume" | "cancel";
  readonly fate: Fate;
  /** From 0 to 1: how many of the backends' calls go wrong. */
  readonly faults: number;
  /** From 0 to 1: at how many points others do something. */
  readonly company: number;
}

/** All of one run, drawn before anything happens. */
export interface Script {
  readonly objects: number;
  /** One of them is wrong at the source. */
  readonly hasDamage: boolean;
  readonly orders: readonly { readonly order: Order; readonly lives: readonly LifePlan[] }[];
}

const steps = [
  "migration planned",
  "migration intended",
  "migration stored",
  "migration copied",
  "migration verified",
  "migration switched",
  "objects deleting",
  "objects deleted",
  "objects forgotten",
  "migration done",
  "migration abandoned",
  "migration redirected",
  "migration ended",
] as const;

export function scriptOf(random: SeededRandom, places: readonly Place[]): Script {
  const [from, to, third] = shuffled(random, places) as [Place, Place, Place];
  const archive = random.next() < 0.25 ? third : undefined;
  const first = orderOf(random, from, to, archive);
  const again = random.next();
  const second =
    again < 0.6 ? orderOf(random, to, from, undefined) : again < 0.8 ? first : orderOf(random, from, third, undefined);
  const count = random.next() < 0.7 ? 2 : 1;
  return {
    objects: 1 + random.integer(8),
    hasDamage: random.next() < 0.08,
    orders: [first, second].slice(0, count).map((order, index) => ({
      order,
      lives: Array.from({ length: index === 0 ? 1 + random.integer(4) : random.integer(3) }, () => lifeOf(random)),
    })),
  };
}

function orderOf(random: SeededRandom, from: Place, to: Place, archive: Place | undefined): Order {
  return {
    from,
    to,
    archive,
    keepsSources: random.next() < 0.3,
    isOnline: random.next() < 0.4,
    verify: random.next() < 0.8 ? "readback" : "checksum",
    buckets: random.next() < 0.15 ? [random.pick(["b", "analysis_archive"])] : [],
    account: random.next() < 0.1 ? "one" : undefined,
    toAnalysisArchive: archive !== undefined && random.next() < 0.2,
    concurrency: random.pick([1, 2, 8]),
  };
}

function lifeOf(random: SeededRandom): LifePlan {
  const command = random.next();
  return {
    command: command < 0.6 ? "order" : command < 0.88 ? "resume" : "cancel",
    fate: fateOf(random),
    faults: random.pick([0, 0, 0.05, 0.15, 0.4]),
    company: random.pick([0, 0.02, 0.05, 0.15]),
  };
}

function fateOf(random: SeededRandom): Fate {
  const kind = random.next();
  const early = 1 + Math.floor(random.next() ** 2 * 150);
  if (kind < 0.35) return { diesAt: early };
  const step = { name: random.pick(steps), nth: 1 + random.integer(2) };
  if (kind < 0.6) return { diesAtStep: step };
  if (kind < 0.66) return { isInterruptedAt: early };
  if (kind < 0.75) return { isInterruptedAtStep: step };
  if (kind < 0.88) return { standsStillAt: early };
  return {};
}

function shuffled<T>(random: SeededRandom, items: readonly T[]): readonly T[] {
  return items
    .map((item) => ({ item, rank: random.next() }))
    .toSorted((one, other) => one.rank - other.rank)
    .map(({ item }) => item);
}
