import type { ObjectRef } from "../../src/objects/index.ts";
import type { SeededRandom } from "../fault/random.ts";
import { type ConfigurationName, configurations } from "./world.ts";

/** One thing that is done to the store; drawn before anything runs, so that a seed gives the same plan each time. */
export type Operation = { readonly number: number; readonly store: 0 | 1 } & Deed;

export interface Draft {
  readonly ref: ObjectRef;
  readonly serial: number;
  readonly sizeBytes: number;
}

type Deed =
  /** Staged one after the other, published in one transaction. */
  | {
      readonly kind: "put";
      readonly drafts: readonly Draft[];
      readonly end: "commit" | "rollback" | "abandon";
      readonly pauses: number;
    }
  | { readonly kind: "failingPut"; readonly draft: Draft; readonly failAfter: number }
  | { readonly kind: "retire"; readonly ref: ObjectRef }
  /** One is removed and another comes, in one transaction. */
  | { readonly kind: "exchange"; readonly ref: ObjectRef; readonly draft: Draft }
  | { readonly kind: "get"; readonly ref: ObjectRef; readonly pauses: number }
  | { readonly kind: "getPart"; readonly ref: ObjectRef; readonly sizeBytes: number }
  | { readonly kind: "find"; readonly ref: ObjectRef }
  | { readonly kind: "reap"; readonly limit: number }
  /** The clock jumps, and at once the reaper comes. */
  | { readonly kind: "expire"; readonly seconds: number; readonly pauses: number }
  | { readonly kind: "scrub"; readonly share: number; readonly isRepairing: boolean; readonly restart: boolean }
  | { readonly kind: "usage" }
  | { readonly kind: "cut"; readonly pauses: number }
  | { readonly kind: "jump"; readonly seconds: number; readonly pauses: number };

/** What is done while nothing else is at work. */
export type Interlude =
  | { readonly kind: "reopen"; readonly configuration: ConfigurationName }
  | { readonly kind: "jump"; readonly seconds: number }
  | { readonly kind: "claim" };

export interface Batch {
  readonly interlude: Interlude | undefined;
  readonly isStormy: boolean;
  readonly operations: readonly Operation[];
}

const refs: readonly ObjectRef[] = ["one", "two"].flatMap((account) =>
  ["documents", "analysis_archive"].flatMap((bucket) => ["a", "b", "c"].map((key) => ({ account, bucket, key }))),
);

const weights: Readonly<Record<Deed["kind"], number>> = {
  put: 30,
  failingPut: 3,
  retire: 8,
  exchange: 4,
  get: 22,
  getPart: 5,
  find: 6,
  reap: 14,
  scrub: 1.5,
  usage: 1,
  cut: 1.5,
  jump: 3,
  expire: 3,
};
const kinds = Object.entries(weights) as readonly (readonly [Deed["kind"], number])[];
const weightOfAll = kinds.reduce((sum, [, weight]) => sum + weight, 0);

/** Batches of in all `operations` operations. */
export function* planOf(random: SeededRandom, operations: number): Generator<Batch> {
  let number = 0;
  let serial = 0;
  const draft = (ref: ObjectRef): Draft => {
    // Now and then what was written before: then there are copies.
    const drawn = random.next() < 0.85 ? ++serial : Math.max(1, serial - random.integer(4));
    return { ref, serial: drawn, sizeBytes: sizeOf(drawn) };
  };
  while (number < operations) {
    const interlude = interludeOf(random);
    const isStormy = random.next() < 0.65;
    const size = Math.min(1 + random.integer(8), operations - number);
    // Every second batch is about few objects, so that its operations meet.
    const here = random.next() < 0.5 ? [random.pick(refs), random.pick(refs)] : refs;
    const batch: Operation[] = [];
    for (let index = 0; index < size; index++) {
      const store = random.integer(2) as 0 | 1;
      // Two jumps at once could be longer than what is on its way lives.
      const hasJump = batch.some(isJump);
      const deed = deedOf(random, here, draft);
      batch.push({ number: ++number, store, ...(isJump(deed) && hasJump ? { kind: "reap", limit: 100 } : deed) });
    }
    yield { interlude, isStormy, operations: batch };
  }
}

/** By the serial alone, so that the same serial is the same content. */
function sizeOf(serial: number): number {
  const mixed = Math.imul(serial, 0x9e3779b1) >>> 0;
  const choice = mixed % 100;
  const detail = (mixed >>> 8) / 2 ** 24;
  if (choice < 3) return 0;
  if (choice < 70) return 30 + Math.floor(detail * 10_000);
  if (choice < 88) return Math.floor(detail * 400_000);
  // Larger than what is checked before its first byte is handed on.
  return 1_048_577 + Math.floor(detail * 600_000);
}

function interludeOf(random: SeededRandom): Interlude | undefined {
  const chance = random.next();
  if (chance < 0.05) return { kind: "reopen", configuration: random.pick(configurations) };
  if (chance < 0.2) return { kind: "jump", seconds: random.pick([200, 950, 2500]) };
  return chance < 0.21 ? { kind: "claim" } : undefined;
}

function kindOf(drawn: number): Deed["kind"] {
  let at = drawn * weightOfAll;
  for (const [kind, weight] of kinds) {
    at -= weight;
    if (at < 0) return kind;
  }
  return "get";
}

function isJump({ kind }: Pick<Deed, "kind">): boolean {
  return kind === "jump" || kind === "expire";
}

function deedOf(random: SeededRandom, here: readonly ObjectRef[], draft: (ref: ObjectRef) => Draft): Deed {
  const kind = kindOf(random.next());
  const ref = random.pick(here);
  const pauses = random.integer(20);
  switch (kind) {
    case "put": {
      const count = random.next() < 0.75 ? 1 : 2 + random.integer(3);
      const chosen = new Set(Array.from({ length: count }, () => random.pick(here)));
      const end = random.next();
      return {
        kind,
        drafts: [...chosen].map(draft),
        end: end < 0.85 ? "commit" : end < 0.93 ? "rollback" : "abandon",
        pauses: random.next() < 0.3 ? pauses : 0,
      };
    }
    case "failingPut":
      return { kind, draft: draft(ref), failAfter: random.integer(300_000) };
    case "exchange": {
      const other = refs[(refs.indexOf(ref) + 1) % refs.length] as ObjectRef;
      return { kind, ref, draft: draft(other) };
    }
    case "get":
      return { kind, ref, pauses: random.next() < 0.4 ? pauses : 0 };
    case "getPart":
      return { kind, ref, sizeBytes: random.integer(20_000) };
    case "reap":
      return { kind, limit: random.pick([1, 3, 10, 100]) };
    case "scrub":
      return { kind, share: random.pick([0.3, 1]), isRepairing: random.next() < 0.5, restart: random.next() < 0.5 };
    case "jump":
    case "expire":
      return { kind, seconds: random.pick([301, 901, 950]), pauses };
    case "cut":
      return { kind, pauses };
    case "usage":
      return { kind };
    case "retire":
    case "find":
      return { kind, ref };
  }
}
