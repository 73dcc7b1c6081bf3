/** Schema migrations, in order. Adding one is a file here and a line in the list. */
import { initial } from "./0001-initial.ts";
import { migrationJournal } from "./0002-migration-journal.ts";
import { announcedCompression } from "./0003-announced-compression.ts";
import type { Migration } from "./migration.ts";

export { migrate } from "./migrate.ts";
export type { Migration } from "./migration.ts";

export const migrations: readonly Migration[] = [initial, migrationJournal, announcedCompression];
