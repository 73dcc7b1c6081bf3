import type { Kysely, Transaction as KyselyTransaction } from "kysely";
import type { DatabaseSettings } from "../config/index.ts";
import type { Call } from "../runtime/index.ts";
import type { BinaryRow } from "./binary-rows.ts";
import type { Tables } from "./tables.ts";

/** An open transaction with the call it was begun under. */
export interface Transaction {
  readonly sql: KyselyTransaction<Tables>;
  readonly call: Call;
}

/** A lock that other sessions of the same database respect. */
export interface HeldLock extends AsyncDisposable {
  /** Fires when the lock's database connection is lost: work it guards must stop. */
  readonly signal: AbortSignal;
}

/** An open database: the user's PostgreSQL or the embedded one. Closing it stops the embedded server when nobody else uses it. */
export interface Database extends AsyncDisposable {
  readonly sql: Kysely<Tables>;
  /** For people, without the password. */
  readonly description: string;
  /**
   * The rows of a query whose fields are long bytes, in the server's binary form (numbers are big-endian). It takes no parameters: whoever writes values
   * into it answers for them.
   */
  binaryRows(query: string): Promise<readonly BinaryRow[]>;
  /** Runs `work` in one transaction, repeated whole on serialisation failures and deadlocks (at most 5 times). */
  transaction<T>(work: (tx: Transaction) => Promise<T>, call: Call): Promise<T>;
  /** Waits for the advisory lock `name` (exclusive or shared) at most `timeoutMs`; `undefined` when it was not got. */
  lock(name: string, mode: "exclusive" | "shared", timeoutMs: number, call: Call): Promise<HeldLock | undefined>;
  /** Who holds the advisory lock `name` just now: the names that they gave their locks when they opened the database. Free text of other programs. */
  holdersOf(name: string): Promise<readonly string[]>;
}

export type DatabaseLocation =
  | { readonly kind: "embedded"; readonly dataDirectory: string }
  | { readonly kind: "server"; readonly url: string; readonly settings?: DatabaseSettings };
