import type { ObjectRef } from "../../src/objects/index.ts";

/** The digest of an object's content, or that there is no object. */
export type Value = string | "absent";

/** What became of a write: seen by everybody, by nobody, or one of the two. */
export type Fate = "done" | "failed" | "unknown";

export interface Write {
  readonly operation: number;
  readonly name: string;
  readonly value: Value;
  /** What it was before may have been the same. */
  readonly isChange: boolean;
  fate: Fate;
  /** As it was published; left out when that is not known, or when it removed the object. */
  version?: number;
}

export interface Sighting {
  readonly operation: number;
  readonly name: string;
  readonly value: Value;
}

/** Writes of one transaction. */
export type Together = readonly Write[];

export class Violation extends Error {}

export function nameOf({ account, bucket, key }: ObjectRef): string {
  return `${account}/${bucket}/${key}`;
}

/**
 * What every object may be, in plain memory. Operations come in batches that run at once; after each batch the objects are looked at, which says
 * what became of the writes whose answer was lost.
 */
export class Model {
  readonly #values = new Map<string, ReadonlySet<Value>>();
  #writes: Write[] = [];
  #sightings: Sighting[] = [];
  #transactions: Together[] = [];

  /** Before it is tried. */
  intend(operation: number, values: ReadonlyMap<string, Value>): Together {
    const writes = [...values].map(
      ([name, value]): Write => ({ operation, name, value, isChange: !this.possible(name).has(value), fate: "failed" }),
    );
    this.#writes.push(...writes);
    this.#transactions.push(writes);
    return writes;
  }

  saw(sighting: Sighting): void {
    this.#sightings.push(sighting);
  }

  possible(name: string): ReadonlySet<Value> {
    return this.#values.get(name) ?? new Set<Value>(["absent"]);
  }

  get names(): readonly string[] {
    return [...this.#values.keys()];
  }

  /** All of the batch has ended: what was seen is judged. Returns the objects that were written. */
  judge(): ReadonlySet<string> {
    const violations: string[] = [];
    for (const { operation, name, value } of this.#sightings) {
      const writes = this.#writes.filter((write) => write.name === name && write.fate !== "failed");
      const allowed = new Set([...this.possible(name), ...writes.map((write) => write.value)]);
      if (!allowed.has(value)) {
        violations.push(`operation ${operation} saw ${value} at ${name}; it could be ${[...allowed].join(" or ")}`);
      }
    }
    const written = new Set(this.#writes.map(({ name }) => name));
    for (const name of written) {
      const writes = this.#writes.filter((write) => write.name === name);
      violations.push(...sameVersions(name, writes));
      this.#values.set(name, this.#after(name, writes));
    }
    if (violations.length > 0) throw new Violation(violations.join("\n"));
    return written;
  }

  #after(name: string, writes: readonly Write[]): ReadonlySet<Value> {
    const done = writes.filter(({ fate }) => fate === "done");
    const unknown = writes.filter(({ fate }) => fate === "unknown").map(({ value }) => value);
    if (done.length === 0) return new Set([...this.possible(name), ...unknown]);
    // Without removals, the highest version is the last.
    const published = done.filter((write) => write.version !== undefined);
    const isOrdered = published.length === done.length && unknown.length === 0;
    const last = published.toSorted((one, other) => (other.version ?? 0) - (one.version ?? 0)).slice(0, 1);
    return new Set([...(isOrdered ? last : done).map(({ value }) => value), ...unknown]);
  }

  /** What was judged is over, without a look at what it has become. */
  step(): void {
    this.#writes = [];
    this.#sightings = [];
    this.#transactions = [];
  }

  /** What the objects that were written are now, as they were looked at when nothing was at work. Ends the batch. */
  settle(seen: ReadonlyMap<string, Value>): void {
    const violations: string[] = [];
    for (const [name, value] of seen) {
      const possible = this.possible(name);
      if (!possible.has(value)) violations.push(`${name} is ${value}; it could be ${[...possible].join(" or ")}`);
      this.#values.set(name, new Set([value]));
    }
    for (const transaction of this.#transactions) violations.push(...this.#halves(transaction, seen));
    this.step();
    if (violations.length > 0) throw new Violation(violations.join("\n"));
  }

  /** A transaction of which one part is seen and another not. */
  #halves(transaction: Together, seen: ReadonlyMap<string, Value>): string[] {
    const isAlone = transaction.every(
      ({ name, fate }) =>
        fate !== "failed" &&
        this.#writes.filter((write) => write.name === name && write.fate !== "failed").length === 1,
    );
    const changes = transaction.filter(({ isChange }) => isChange);
    if (changes.length < 2 || !isAlone) return [];
    const happened = changes.filter(({ name, value }) => seen.get(name) === value);
    if (happened.length === 0 || happened.length === changes.length) return [];
    return [`operation ${transaction[0]?.operation}: ${happened.length} of ${changes.length} writes happened`];
  }
}

function sameVersions(name: string, writes: readonly Write[]): string[] {
  if (writes.some(({ value, fate }) => value === "absent" && fate !== "failed")) return [];
  const versions = writes.filter(({ fate }) => fate === "done").flatMap(({ version }) => version ?? []);
  return new Set(versions).size === versions.length ? [] : [`two versions of ${name} have one number: ${versions}`];
}
