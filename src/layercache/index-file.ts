import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite";
import { type Call, type Clock, throwIfAborted } from "../runtime/index.ts";
import { journalBytesMax } from "./accounting.ts";
import { refuseLink, type Sqlite } from "./lock-file.ts";
import { CacheTrouble, troubleOf } from "./trouble.ts";

const schemaVersion = 1;

const schema = `
  create table layers (
    digest text primary key,
    size integer not null check (size > 0),
    cost integer not null check (cost >= 0),
    state text not null check (state in ('filling', 'ready', 'deleting')),
    owner text,
    token text,
    last_used integer not null,
    hits integer not null default 0
  ) strict, without rowid;
  create index layers_by_use on layers (last_used) where state = 'ready';
  create index layers_at_work on layers (state) where state <> 'ready';
  create table uses (digest text, owner text, count integer not null, primary key (digest, owner)) strict, without rowid;
  create table owners (id text primary key, bytes_max integer not null) strict, without rowid;
  create table totals (
    id integer primary key check (id = 1),
    entries integer not null,
    cost integer not null,
    foreign_bytes integer not null,
    own_bytes integer not null
  ) strict;
  insert into totals values (1, 0, 0, 0, 0);
  create trigger layer_came after insert on layers begin
    update totals set entries = entries + 1, cost = cost + new.cost;
  end;
  create trigger layer_went after delete on layers begin
    update totals set entries = entries - 1, cost = cost - old.cost;
  end;
  pragma user_version = ${schemaVersion};
`;

/** How long others may keep the index busy. */
const busyMs = 20_000;
const retryMs = 2;

export type Row = Record<string, string | number | null>;

/**
 * The index: a SQLite file with small transactions. Nothing in it is ever fsynced: what a power loss spoils is made anew, and no blob is believed without
 * its digest. Its bodies are synchronous and short; who finds it busy waits without keeping the process from other things.
 */
export class IndexFile implements Disposable {
  readonly #database: DatabaseSync;
  readonly #clock: Clock;
  readonly #statements = new Map<string, StatementSync>();

  private constructor(database: DatabaseSync, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  /** @throws CacheTrouble `damaged`: it must be made anew */
  static async open(sqlite: Sqlite, path: string, pagesMax: number, clock: Clock, call: Call): Promise<IndexFile> {
    let database: DatabaseSync | undefined;
    try {
      refuseLink(path);
      database = new sqlite.DatabaseSync(path, { timeout: 0 });
      const index = new IndexFile(database, clock);
      await index.#whenFree(() => {
        for (const pragma of [
          "page_size = 4096",
          "auto_vacuum = incremental",
          "synchronous = off",
          "journal_mode = truncate",
          `journal_size_limit = ${journalBytesMax(pagesMax)}`,
          "temp_store = memory",
          "cache_size = -512",
          "trusted_schema = off",
          `max_page_count = ${pagesMax}`,
        ]) {
          database?.exec(`pragma ${pragma}`);
        }
      }, call);
      await index.change(() => index.#prepare(), call);
      return index;
    } catch (error) {
      if (database?.isOpen) database.close();
      throw troubleOf(error);
    }
  }

  #prepare(): void {
    const version = this.row("pragma user_version")?.user_version;
    if (version === schemaVersion) {
      if (this.row("select entries from totals") === undefined) throw new CacheTrouble("damaged", "its index is empty");
      return;
    }
    const tables = this.row("select count(*) as count from sqlite_schema")?.count;
    if (version !== 0 || tables !== 0) throw new CacheTrouble("damaged", "its index is of another version");
    this.#database.exec(schema);
  }

  /** A transaction that no other runs beside. Its body must not wait for anything. */
  async change<T>(body: () => T, call: Call): Promise<T> {
    return await this.#whenFree(() => {
      this.#database.exec("begin exclusive");
      try {
        const result = body();
        this.#database.exec("commit");
        return result;
      } catch (error) {
        if (this.#database.isTransaction) this.#database.exec("rollback");
        throw error;
      }
    }, call);
  }

  /** One statement, by itself. */
  async read<T>(body: () => T, call: Call): Promise<T> {
    return await this.#whenFree(body, call);
  }

  /** Gives pages that are empty back to the file system, in small steps. */
  async shrink(call: Call): Promise<void> {
    for (;;) {
      const free = await this.read(() => Number(this.row("pragma freelist_count")?.freelist_count), call);
      if (free === 0) return;
      await this.change(() => this.rows("pragma incremental_vacuum(16)"), call);
    }
  }

  run(statement: string, ...values: SQLInputValue[]): number {
    return Number(this.#prepared(statement).run(...values).changes);
  }

  row(statement: string, ...values: SQLInputValue[]): Row | undefined {
    return this.#prepared(statement).get(...values) as Row | undefined;
  }

  rows(statement: string, ...values: SQLInputValue[]): Row[] {
    return this.#prepared(statement).all(...values) as Row[];
  }

  [Symbol.dispose](): void {
    if (this.#database.isOpen) this.#database.close();
  }

  #prepared(text: string): StatementSync {
    let statement = this.#statements.get(text);
    if (statement === undefined) {
      statement = this.#database.prepare(text);
      this.#statements.set(text, statement);
    }
    return statement;
  }

  async #whenFree<T>(body: () => T, call: Call): Promise<T> {
    return await whenFree(
      () => {
        if (!this.#database.isOpen) throw new CacheTrouble("closed", "its index has been closed");
        try {
          return { value: body() };
        } catch (error) {
          const trouble = troubleOf(error);
          if (trouble.kind === "busy") return undefined;
          throw trouble;
        }
      },
      "its index",
      this.#clock,
      call,
    );
  }
}

/** Tries until it gets something; others may be in the way for a moment. */
export async function whenFree<T>(
  attempt: () => { readonly value: T } | undefined,
  what: string,
  clock: Clock,
  call: Call,
): Promise<T> {
  const deadline = clock.now().getTime() + busyMs;
  for (let delayMs = retryMs; ; delayMs = Math.min(delayMs * 1.5, 50)) {
    throwIfAborted(call);
    const result = attempt();
    if (result !== undefined) return result.value;
    if (clock.now().getTime() > deadline)
      throw new CacheTrouble("busy", `${what} has been busy for ${busyMs / 1000} s`);
    await clock.sleep(delayMs, call);
  }
}
