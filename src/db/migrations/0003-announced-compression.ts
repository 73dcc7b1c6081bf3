import { sql } from "kysely";
import type { Migration } from "./migration.ts";

/** Of a verified pair: how its blob is compressed according to the media type it was read under; null where that says nothing. */
export const announcedCompression: Migration = {
  name: "0003-announced-compression",
  isBreaking: false,
  async up(db) {
    await sql`alter table verified_pairs add column announced_compression text`.execute(db);
  },
};
