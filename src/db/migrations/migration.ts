import type { Kysely } from "kysely";

/** One step of the schema: forward only, and never edited once released. */
export interface Migration {
  /** Its file's name; the order of the names is the order of the steps. */
  readonly name: string;
  /** Whether a program that doesn't know this step would do harm. Such a program refuses to work. */
  readonly isBreaking: boolean;
  /** Called inside a transaction. The tables are those of its time, not those of `db/tables.ts`. */
  up(db: Kysely<unknown>): Promise<void>;
}
