import type { Database } from "../db/index.ts";
import { StowageError } from "../errors/index.ts";
import { type Call, follow } from "../runtime/index.ts";
import { renewLeases } from "./rows/locations.ts";
import type { ObjectRef } from "./store.ts";

/** The leases of all puts at work: renewed while they are, in one statement. */
export class Leases implements Disposable {
  readonly #database: Database;
  readonly #seconds: number;
  readonly #held = new Map<number, Lease>();
  #timer: NodeJS.Timeout | undefined;

  constructor(database: Database, seconds: number) {
    this.#database = database;
    this.#seconds = seconds;
  }

  /** Keeps a lease until it is disposed of; its call is the given one, and is aborted too when the lease is lost. */
  keep(ref: ObjectRef, locationId: number, call: Call): Lease {
    const lease = new Lease(ref, call, () => this.#held.delete(locationId));
    this.#held.set(locationId, lease);
    this.#timer ??= setInterval(() => void this.#renew(), (this.#seconds * 1000) / 3).unref();
    return lease;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  async #renew(): Promise<void> {
    const held = new Map(this.#held);
    if (held.size === 0) return;
    try {
      const renewed = new Set(await renewLeases(this.#database, [...held.keys()], this.#seconds));
      for (const [locationId, lease] of held) if (!renewed.has(locationId)) lease.lose();
    } catch (error) {
      // The next renewal, or the publication, tells whether they are really lost.
      for (const [locationId, { call }] of held) call.log.warn({ err: error, locationId }, "lease not renewed");
    }
  }
}

class Lease implements Disposable {
  readonly #ref: ObjectRef;
  readonly #ended = new AbortController();
  readonly #release: () => void;
  readonly call: Call;

  constructor(ref: ObjectRef, call: Call, release: () => void) {
    this.#ref = ref;
    const following = follow(call.signal, this.#ended);
    this.#release = () => {
      following[Symbol.dispose]();
      release();
    };
    this.call = { ...call, signal: this.#ended.signal };
  }

  lose(): void {
    this.#ended.abort(leaseLost(this.#ref));
  }

  [Symbol.dispose](): void {
    this.#release();
  }
}

export function leaseLost(ref: ObjectRef): StowageError {
  return new StowageError(
    "OBJECT_LEASE_LOST",
    { bucket: ref.bucket, key: ref.key },
    { hint: "the write took longer than its lease; run the command again" },
  );
}
