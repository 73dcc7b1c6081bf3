/**
 * Migrations: every object of a selection is copied to another backend, read back, and only then its pointer is moved; only then its source goes. A journal
 * says of each object how far it is, so that a migration can be interrupted at any instant and gone on with, and never says more than is true.
 */
export { type MigrationPace, type MigrationStatus, Migrations } from "./migrations.ts";
export type { MigrationOrder } from "./order.ts";
export type { MigrationSnapshot } from "./progress.ts";
export type { FailedMove, MoveCounts, PlaceName, SelectedGroup } from "./rows.ts";
export { isSamePlace, type Selection, type SelectionFlags, type StoreBackends, selectionOf } from "./selection.ts";
