/** The database: engines (embedded, the user's PostgreSQL), schema migrations, transactions, locks. The only room that knows `pg`. */
export type { Database, DatabaseLocation, HeldLock, Transaction } from "./database.ts";
export { sqlStateOf } from "./failures.ts";
export { type DatabaseOptions, openDatabase } from "./open.ts";
export type { LocationState, MigrationState, MoveState, ScrubFindingsTable, Tables } from "./tables.ts";
export { unhurried } from "./transactions.ts";
