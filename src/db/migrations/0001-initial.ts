import { sql } from "kysely";
import type { Migration } from "./migration.ts";

/** All tables of the first release; what they mean stands in `db/tables.ts`. */
export const initial: Migration = {
  name: "0001-initial",
  isBreaking: true,
  async up(db) {
    await sql`
      create table installations (
        id uuid primary key,
        database_identity text,
        created_at timestamptz not null default now()
      )`.execute(db);
    await sql`create unique index installations_is_single on installations ((true))`.execute(db);
    await sql`insert into installations (id) values (gen_random_uuid())`.execute(db);

    await sql`
      create table backends (
        id integer primary key generated always as identity,
        driver text not null,
        settings jsonb not null,
        mark uuid not null default gen_random_uuid(),
        generation integer not null default 0 check (generation >= 0),
        token uuid,
        next_token uuid,
        created_at timestamptz not null default now(),
        unique (driver, settings)
      )`.execute(db);

    await sql`
      create table locations (
        id bigint primary key generated always as identity,
        backend_id integer not null references backends (id),
        physical_key text collate "C" not null,
        account text not null,
        bucket text not null,
        object_key text not null,
        state text not null check (state in ('pending', 'live', 'retired', 'kept', 'deleting')),
        state_since timestamptz not null default now(),
        writer text,
        lease_until timestamptz,
        codec text,
        content_digest text,
        content_bytes bigint check (content_bytes >= 0),
        stored_digest text,
        stored_bytes bigint check (stored_bytes >= 0),
        proven_at timestamptz,
        damage text,
        checked_at timestamptz,
        created_at timestamptz not null default now(),
        unique (backend_id, physical_key),
        check (state <> 'pending' or (writer is not null and lease_until is not null)),
        check (state not in ('live', 'retired', 'kept') or
               (codec is not null and content_digest is not null and content_bytes is not null and
                stored_digest is not null and stored_bytes is not null))
      )`.execute(db);
    // The reaper asks for what is not live: by age of its state, and pending ones by the end of their lease.
    await sql`create index locations_by_state on locations (state, state_since)`.execute(db);
    await sql`create index locations_by_lease on locations (lease_until) where state = 'pending'`.execute(db);
    await sql`create index locations_by_object on locations (account, bucket, object_key)`.execute(db);
    await sql`create index locations_damaged on locations (id) where damage is not null`.execute(db);

    await sql`
      create table objects (
        account text not null,
        bucket text not null,
        key text not null,
        location_id bigint not null unique references locations (id),
        version bigint not null check (version > 0),
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now(),
        primary key (account, bucket, key)
      )`.execute(db);

    // Chunks are compressed by the object store's codec or not at all: PostgreSQL would only try in vain. EXTERNAL also lets a part of
    // a chunk be read alone. Rows are written once and deleted once, by the thousand, so vacuum must not wait for a fifth of the table.
    // Keys are listed in the order of their bytes, whatever the collation of the database.
    await sql`
      create table object_chunks (
        physical_key text collate "C" not null,
        position integer not null check (position >= 0),
        bytes bytea not null,
        primary key (physical_key, position)
      ) with (autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_scale_factor = 0.02)`.execute(db);
    await sql`alter table object_chunks alter column bytes set storage external`.execute(db);
    await sql`
      create table object_blobs (
        physical_key text collate "C" primary key,
        bytes bigint not null check (bytes >= 0),
        created_at timestamptz not null default now()
      ) with (autovacuum_vacuum_scale_factor = 0.02)`.execute(db);
    // A function, so that it is one journey to the server; each statement in it sees what was committed before it. The first chunk is the claim on the
    // key: its deletion waits for a batch that is being written, and no other begins. What that one wrote is seen by the next statements.
    await sql`
      create function delete_object_blob(doomed text, is_any boolean) returns void language plpgsql as $$
      begin
        delete from object_chunks where physical_key = doomed and position = 0;
        delete from object_blobs where physical_key = doomed and (is_any or bytes > 0);
        delete from object_chunks where physical_key = doomed;
      end $$`.execute(db);

    await sql`
      create table scrubs (
        id bigint primary key generated always as identity,
        started_at timestamptz not null default now(),
        ended_at timestamptz,
        share double precision not null check (share > 0 and share <= 1),
        seed integer not null,
        backend_id integer,
        after_key text collate "C" not null default '',
        objects bigint not null default 0,
        bytes bigint not null default 0
      )`.execute(db);
    await sql`create unique index scrubs_one_unfinished on scrubs ((true)) where ended_at is null`.execute(db);
    await sql`
      create table scrub_findings (
        scrub_id bigint not null references scrubs (id) on delete cascade,
        backend_id integer not null,
        physical_key text collate "C" not null,
        kind text not null check (kind in ('missing', 'truncated', 'damaged', 'unreadable', 'extra')),
        detail text not null,
        bytes bigint,
        primary key (scrub_id, backend_id, physical_key)
      )`.execute(db);

    await sql`
      create table images (
        account text not null,
        digest text not null,
        parent_digest text not null,
        image_id text not null,
        media_type text not null,
        os text not null,
        architecture text not null,
        variant text,
        distro text,
        distro_version text,
        layer_count integer not null check (layer_count >= 0),
        file_count bigint not null check (file_count >= 0),
        file_bytes bigint not null check (file_bytes >= 0),
        blob_bytes bigint not null check (blob_bytes >= 0),
        package_count integer not null check (package_count >= 0),
        package_counts jsonb not null,
        fingerprint text not null,
        damage text,
        analyzed_at timestamptz not null default now(),
        created_at timestamptz not null default now(),
        primary key (account, digest)
      )`.execute(db);
    await sql`create index images_by_image_id on images (account, image_id)`.execute(db);
    await sql`create index images_by_parent on images (account, parent_digest)`.execute(db);

    await sql`
      create table image_tags (
        account text not null,
        full_tag text not null,
        registry text not null,
        repository text not null,
        tag text not null,
        digest text not null,
        detected_at timestamptz not null default now(),
        primary key (account, full_tag),
        foreign key (account, digest) references images (account, digest) on delete cascade
      )`.execute(db);
    await sql`create index image_tags_by_image on image_tags (account, digest)`.execute(db);

    await sql`
      create table image_layers (
        account text not null,
        digest text not null,
        position integer not null check (position >= 0),
        blob_digest text not null,
        blob_bytes bigint not null check (blob_bytes >= 0),
        media_type text not null,
        diff_id text not null,
        layer_key text,
        primary key (account, digest, position),
        foreign key (account, digest) references images (account, digest) on delete cascade
      )`.execute(db);
    await sql`create index image_layers_by_layer_key on image_layers (layer_key)`.execute(db);

    await sql`
      create table layer_documents (
        layer_key text primary key,
        diff_id text not null,
        fingerprint text not null,
        last_used_at timestamptz not null default now(),
        created_at timestamptz not null default now()
      )`.execute(db);
    await sql`create index layer_documents_by_last_use on layer_documents (last_used_at)`.execute(db);

    await sql`
      create table verified_pairs (
        blob_digest text not null,
        diff_id text not null,
        blob_bytes bigint not null check (blob_bytes >= 0),
        layer_bytes bigint not null check (layer_bytes >= 0),
        verified_at timestamptz not null default now(),
        primary key (blob_digest, diff_id)
      )`.execute(db);

    await sql`
      create table layer_access (
        account text not null,
        blob_digest text not null,
        shown_at timestamptz not null default now(),
        primary key (account, blob_digest)
      )`.execute(db);
  },
};
