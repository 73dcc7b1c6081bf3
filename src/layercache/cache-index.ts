import type { Call } from "../runtime/index.ts";
import { journalBytesMax, overheadOf, rowsPerStep } from "./accounting.ts";
import type { IndexFile, Row } from "./index-file.ts";

/** A layer whose files its owner has to remove, then its row. */
export interface Condemned {
  readonly digest: string;
  /** Of a download that did not end. */
  readonly token: string | undefined;
  readonly size: number;
}

/** As the index of these few rows says it, so that it is used. */
const atWork = "state <> 'ready'";

export type Reservation =
  /** The room is the caller's. */
  | { readonly kind: "reserved" }
  /** It is there. */
  | { readonly kind: "ready" }
  /** Somebody is downloading it. */
  | { readonly kind: "filling"; readonly token: string }
  /** These go first; they are the caller's to remove. */
  | { readonly kind: "evict"; readonly condemned: readonly Condemned[] }
  /** Somebody is removing something whose room may do. */
  | { readonly kind: "wait" }
  /** There is no room, or it can't be kept for another reason. */
  | { readonly kind: "refused" };

export interface Totals {
  readonly bytesMax: number;
  readonly entriesMax: number;
  readonly entries: number;
  /** Of all rows. */
  readonly cost: number;
  readonly foreignBytes: number;
  /** What the index and the directories may take up. */
  readonly overheadBytes: number;
}

export interface ListedEntry {
  readonly digest: string;
  readonly size: number;
  readonly lastUsed: number;
  readonly hits: number;
  readonly uses: number;
}

/**
 * The life of a layer in the cache. The room that a row counts for (`cost`) is never less than what its files take up: a row is written before a file
 * comes, and goes after the file has gone.
 *
 * | row | on the disk | a crash leaves | who goes on |
 * |---|---|---|---|
 * | – | nothing | – | – |
 * | `filling`, owner, token | nothing, then `partial/TOKEN` up to its size, then `sha256/DIGEST`, its digest proven | all of that | its owner; once that is dead, whoever opens the cache or needs room takes it over as `deleting` |
 * | `ready` | `sha256/DIGEST` | an entry | – |
 * | `ready`, row in `uses` | the same, open in a process | a use of the dead | the same: the use goes |
 * | `deleting`, owner | as before, or nothing any more | garbage that counts | its owner; once that is dead, the same again |
 * | `deleting`, no owner | `sha256/DIGEST`, open in a process, unlinked for nobody | the same | whoever uses it last, or needs room |
 *
 * Only the owner of a row touches its files, so that nobody removes what another has just put there. Who is dead is asked of the kernel (`lock-file.ts`).
 */
export class CacheIndex {
  readonly #file: IndexFile;
  readonly #owner: string;

  constructor(file: IndexFile, owner: string) {
    this.#file = file;
    this.#owner = owner;
  }

  /** Joins those who use the cache. `lock` makes the proof that the caller lives; nobody can look for it meanwhile. */
  join<T>(bytesMax: number, lock: () => T, call: Call): Promise<T> {
    return this.#file.change(() => {
      const held = lock();
      this.#file.run("insert into owners values (?, ?)", this.#owner, bytesMax);
      return held;
    }, call);
  }

  leave(call: Call): Promise<void> {
    return this.#file.change(() => {
      this.#file.run("delete from owners where id = ?", this.#owner);
    }, call);
  }

  find(
    digest: string,
    call: Call,
  ): Promise<{ readonly state: string; readonly token: string | undefined } | undefined> {
    return this.#file.read(() => {
      const row = this.#file.row("select state, token from layers where digest = ?", digest);
      return row && { state: String(row.state), token: text(row.token) };
    }, call);
  }

  /** Begins a use, if the layer is there. It must be released. */
  use(digest: string, size: number, now: number, isRequest: boolean, call: Call): Promise<boolean> {
    return this.#file.change(() => {
      const touch = isRequest ? ", last_used = ?, hits = hits + 1" : "";
      const found = this.#file.run(
        `update layers set state = state${touch} where digest = ? and size = ? and state = 'ready'`,
        ...(isRequest ? [now] : []),
        digest,
        size,
      );
      if (found === 0) return false;
      this.#file.run(
        "insert into uses values (?, ?, 1) on conflict do update set count = count + 1",
        digest,
        this.#owner,
      );
      return true;
    }, call);
  }

  /** Ends a use. Says whether the layer is now the caller's to remove. */
  release(digest: string, call: Call): Promise<boolean> {
    return this.#file.change(() => {
      this.#file.run("update uses set count = count - 1 where digest = ? and owner = ?", digest, this.#owner);
      this.#file.run("delete from uses where digest = ? and owner = ? and count <= 0", digest, this.#owner);
      return this.#takeUnused(digest);
    }, call);
  }

  /** Gives up a layer that is there. Says whether it is now the caller's to remove; else somebody has it open, and removes it later. */
  condemn(digest: string, call: Call): Promise<boolean> {
    return this.#file.change(() => {
      this.#file.run("update layers set state = 'deleting', owner = null where digest = ? and state = 'ready'", digest);
      return this.#takeUnused(digest);
    }, call);
  }

  /** Removes the row of a layer of the caller's whose files have gone. */
  drop(digest: string, call: Call): Promise<void> {
    return this.#file.change(() => {
      this.#file.run("delete from layers where digest = ? and owner = ?", digest, this.#owner);
    }, call);
  }

  reserve(
    layer: { readonly digest: string; readonly size: number; readonly cost: number; readonly token: string },
    now: number,
    call: Call,
  ): Promise<Reservation> {
    return this.#file.change((): Reservation => {
      const row = this.#file.row("select state, token, size from layers where digest = ?", layer.digest);
      // Of two sizes of one blob one is a lie, and this is not the place to find out which.
      if (row && row.size !== layer.size) return { kind: "refused" };
      if (row?.state === "ready") return { kind: "ready" };
      if (row?.state === "filling") return { kind: "filling", token: text(row.token) ?? "" };
      if (row) return this.#isGoing(layer.digest) ? { kind: "wait" } : { kind: "refused" };
      const totals = this.#totals();
      const room = totals.bytesMax - totals.overheadBytes - totals.foreignBytes;
      if (layer.cost > room) return { kind: "refused" };
      const missing = totals.cost + layer.cost - room;
      const tooMany = totals.entries + 1 - totals.entriesMax;
      if (missing <= 0 && tooMany <= 0) {
        this.#file.run(
          "insert into layers (digest, size, cost, state, owner, token, last_used) values (?, ?, ?, 'filling', ?, ?, ?)",
          ...[layer.digest, layer.size, layer.cost, this.#owner, layer.token, now],
        );
        return { kind: "reserved" };
      }
      const { evictable, going, count } = this.#room(totals);
      if (evictable + going < missing || count < tooMany) return { kind: "refused" };
      const condemned = this.#evict(missing, tooMany);
      return condemned.length === 0 ? { kind: "wait" } : { kind: "evict", condemned };
    }, call);
  }

  /** The download is whole, and under its name. */
  complete(digest: string, token: string, now: number, call: Call): Promise<boolean> {
    return this.#file.change(
      () =>
        this.#file.run(
          `update layers set state = 'ready', owner = null, token = null, last_used = ?
           where digest = ? and token = ? and owner = ? and state = 'filling'`,
          ...[now, digest, token, this.#owner],
        ) === 1,
      call,
    );
  }

  /** What must go for the limit to hold, in part: the least recently used that nobody uses. Nothing: it holds, or all that is left is in use. */
  shed(bytesMax: number | undefined, call: Call): Promise<readonly Condemned[]> {
    return this.#file.change(() => {
      const totals = this.#totals();
      const room = Math.min(bytesMax ?? totals.bytesMax, totals.bytesMax) - totals.overheadBytes - totals.foreignBytes;
      const missing = totals.cost - this.#goingCost() - Math.max(room, 0);
      return this.#evict(missing, totals.entries - totals.entriesMax);
    }, call);
  }

  /**
   * Takes over what the dead have left, a part at a time.
   * @returns what is now the caller's to remove, and the dead whose traces are all gone from the index
   */
  reclaim(
    isDead: (owner: string) => boolean,
    call: Call,
  ): Promise<{ readonly condemned: readonly Condemned[]; readonly buried: readonly string[] }> {
    return this.#file.change(() => {
      const condemned: Condemned[] = [];
      const buried: string[] = [];
      const take = (rows: readonly Row[]) => {
        for (const { digest, token, size } of rows) {
          this.#file.run(
            "update layers set state = 'deleting', owner = ? where digest = ?",
            this.#owner,
            digest as string,
          );
          condemned.push({ digest: String(digest), token: text(token), size: Number(size) });
        }
      };
      for (const { id } of this.#file.rows("select id from owners where id <> ?", this.#owner)) {
        const dead = String(id);
        if (condemned.length >= rowsPerStep) break;
        if (!isDead(dead)) continue;
        this.#file.run(
          "delete from uses where (digest, owner) in (select digest, owner from uses where owner = ? limit ?)",
          dead,
          rowsPerStep,
        );
        take(
          this.#file.rows(
            `select digest, token, size from layers where ${atWork} and owner = ? limit ?`,
            dead,
            rowsPerStep,
          ),
        );
        const isLeft =
          this.#file.row(
            `select 1 from uses where owner = ?1 union all select 1 from layers where ${atWork} and owner = ?1`,
            dead,
          ) !== undefined;
        if (isLeft) continue;
        this.#file.run("delete from owners where id = ?", dead);
        buried.push(dead);
      }
      const left = `select digest, token, size from layers where ${atWork} and state = 'deleting' and owner is null
        and digest not in (select digest from uses) limit ?`;
      take(this.#file.rows(left, rowsPerStep));
      return { condemned, buried };
    }, call);
  }

  /** Blobs that were there before the index. */
  adopt(
    files: readonly {
      readonly digest: string;
      readonly size: number;
      readonly cost: number;
      readonly lastUsed: number;
    }[],
    call: Call,
  ): Promise<void> {
    return this.#file.change(() => {
      for (const { digest, size, cost, lastUsed } of files) {
        this.#file.run(
          `insert or ignore into layers (digest, size, cost, state, last_used) values (?, ?, ?, 'ready', ?)`,
          ...[digest, size, cost, lastUsed],
        );
      }
    }, call);
  }

  /** What a look at the directory found. */
  note(foreignBytes: number, ownBytes: number, call: Call): Promise<void> {
    return this.#file.change(() => {
      this.#file.run("update totals set foreign_bytes = ?, own_bytes = ?", foreignBytes, ownBytes);
    }, call);
  }

  totals(call: Call): Promise<Totals & { readonly reserved: number; readonly ready: number; readonly inUse: number }> {
    return this.#file.change(() => {
      const counts = this.#file.row(
        `select coalesce(sum(cost) filter (where state = 'filling'), 0) as reserved, count(*) as at_work,
           (select count(distinct digest) from uses) as in_use from layers where ${atWork}`,
      );
      const totals = this.#totals();
      return {
        ...totals,
        reserved: Number(counts?.reserved),
        ready: totals.entries - Number(counts?.at_work),
        inUse: Number(counts?.in_use),
      };
    }, call);
  }

  sumOfSizes(call: Call): Promise<{ readonly bytes: number; readonly oldestUse: number | undefined }> {
    return this.#file.read(() => {
      const row = this.#file.row(
        "select coalesce(sum(size), 0) as bytes, min(last_used) as oldest from layers where state = 'ready'",
      );
      return { bytes: Number(row?.bytes), oldestUse: typeof row?.oldest === "number" ? row.oldest : undefined };
    }, call);
  }

  /** Entries in order of use, after one of them. */
  page(after: ListedEntry | undefined, call: Call): Promise<ListedEntry[]> {
    return this.#file.read(
      () =>
        this.#file
          .rows(
            `select digest, size, last_used, hits, (select count(*) from uses where uses.digest = layers.digest) as uses
             from layers where state = 'ready' and (last_used, digest) > (?, ?) order by last_used, digest limit 200`,
            ...[after?.lastUsed ?? Number.MIN_SAFE_INTEGER, after?.digest ?? ""],
          )
          .map((row) => ({
            digest: String(row.digest),
            size: Number(row.size),
            lastUsed: Number(row.last_used),
            hits: Number(row.hits),
            uses: Number(row.uses),
          })),
      call,
    );
  }

  /** Names that the index knows, of the given ones. */
  known(kind: "digest" | "token" | "owner", names: readonly string[], call: Call): Promise<ReadonlySet<string>> {
    const queries = {
      digest: "select 1 from layers where digest = ?",
      token: `select 1 from layers where ${atWork} and token = ?`,
      owner: "select 1 from owners where id = ?",
    };
    return this.#file.read(
      () => new Set(names.filter((name) => this.#file.row(queries[kind], name) !== undefined)),
      call,
    );
  }

  #totals(): Totals {
    const row = this.#file.row("select entries, cost, foreign_bytes, own_bytes from totals");
    // Of processes with several limits the smallest counts for all.
    const bytesMax = Number(this.#file.row("select min(bytes_max) as least from owners")?.least);
    const overhead = overheadOf(bytesMax);
    const ownBytes = Number(row?.own_bytes);
    return {
      bytesMax,
      entriesMax: overhead.entriesMax,
      entries: Number(row?.entries),
      cost: Number(row?.cost),
      foreignBytes: Number(row?.foreign_bytes),
      // What a cache that was larger has left of itself counts too.
      overheadBytes: Math.max(overhead.bytes, ownBytes + journalBytesMax(overhead.pagesMax)),
    };
  }

  /** What could be evicted, and what is going already. Not summed up over all entries: there may be many, and those that can't go are few. */
  #room(totals: Totals): { readonly evictable: number; readonly going: number; readonly count: number } {
    const few = this.#file.row(
      `select coalesce(sum(cost), 0) as cost, count(*) as count from (
         select cost from layers where ${atWork} union all
         select cost from layers where state = 'ready' and digest in (select digest from uses))`,
    );
    const count = totals.entries - Number(few?.count);
    return { evictable: totals.cost - Number(few?.cost), going: this.#goingCost(), count };
  }

  /** Of those that somebody is removing at this moment. */
  #goingCost(): number {
    const row = this.#file.row(
      `select coalesce(sum(cost), 0) as going from layers where ${atWork} and state = 'deleting' and owner is not null`,
    );
    return Number(row?.going);
  }

  #evict(bytes: number, count: number): Condemned[] {
    const condemned: Condemned[] = [];
    let missing = bytes;
    const candidates = this.#file.rows(
      `select digest, cost, size from layers where state = 'ready' and digest not in (select digest from uses)
       order by last_used, digest limit ?`,
      rowsPerStep,
    );
    for (const { digest, cost, size } of candidates) {
      if (missing <= 0 && condemned.length >= count) break;
      this.#file.run("update layers set state = 'deleting', owner = ? where digest = ?", this.#owner, digest as string);
      condemned.push({ digest: String(digest), token: undefined, size: Number(size) });
      missing -= Number(cost);
    }
    return condemned;
  }

  /** Whether somebody is removing it at this moment; else its readers keep it. */
  #isGoing(digest: string): boolean {
    return this.#file.row("select owner from layers where digest = ?", digest)?.owner !== null;
  }

  #takeUnused(digest: string): boolean {
    return (
      this.#file.run(
        `update layers set owner = ?1 where digest = ?2 and state = 'deleting' and owner is null
         and not exists (select 1 from uses where digest = ?2)`,
        this.#owner,
        digest,
      ) === 1
    );
  }
}

function text(value: Row[string] | undefined): string | undefined {
  return typeof value === "string" ? value : undefined;
}
