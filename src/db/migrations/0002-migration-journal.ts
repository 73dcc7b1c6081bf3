import { sql } from "kysely";
import type { Migration } from "./migration.ts";

/** Migrations of objects between backends and their moves; what they mean stands in `db/tables.ts`. */
export const migrationJournal: Migration = {
  name: "0002-migration-journal",
  // A program that does not know moves would reap what they hold.
  isBreaking: true,
  async up(db) {
    await sql`
      create table migrations (
        id integer primary key generated always as identity,
        state text not null check (state in ('planning', 'running', 'complete', 'incomplete', 'cancelled')),
        source jsonb not null,
        destination jsonb not null,
        options jsonb not null,
        executor text not null,
        lives integer not null default 0,
        objects bigint not null default 0 check (objects >= 0),
        bytes bigint not null default 0 check (bytes >= 0),
        created_at timestamptz not null default now(),
        started_at timestamptz,
        ended_at timestamptz,
        updated_at timestamptz not null default now()
      )`.execute(db);
    await sql`
      create table migration_moves (
        migration_id integer not null references migrations (id) on delete cascade,
        source_location_id bigint not null,
        account text not null,
        bucket text not null,
        object_key text not null,
        version bigint not null,
        source_backend_id integer not null references backends (id),
        destination_backend_id integer not null references backends (id),
        destination_location_id bigint,
        content_digest text not null,
        content_bytes bigint not null,
        stored_bytes bigint not null,
        state text not null check (state in ('planned', 'copied', 'verified', 'switched', 'done', 'superseded', 'abandoned')),
        attempts integer not null default 0,
        error_code text,
        error_text text,
        updated_at timestamptz not null default now(),
        primary key (migration_id, source_location_id)
      )`.execute(db);
    await sql`create index migration_moves_by_state on migration_moves (migration_id, state, source_location_id)`.execute(
      db,
    );
    // No object is in two migrations that have not come to its end.
    await sql`
      create unique index migration_moves_unfinished on migration_moves (source_location_id)
      where state in ('planned', 'copied', 'verified', 'switched')`.execute(db);
    await sql`
      create table write_redirects (
        backend_id integer not null references backends (id) on delete cascade,
        bucket text not null,
        to_backend_id integer not null references backends (id) on delete cascade,
        migration_id integer not null references migrations (id) on delete cascade,
        primary key (backend_id, bucket),
        check (backend_id <> to_backend_id)
      )`.execute(db);
    await sql`
      alter table locations add column migration_id integer references migrations (id),
        add check (migration_id is null or state = 'pending')`.execute(db);
    await sql`create index locations_by_migration on locations (migration_id) where migration_id is not null`.execute(
      db,
    );
  },
};
