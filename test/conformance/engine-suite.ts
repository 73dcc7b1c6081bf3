import { randomBytes } from "node:crypto";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Database, type DatabaseLocation, openDatabase, sqlStateOf, type Tables } from "../../src/db/index.ts";
import { type Migration, migrate, migrations } from "../../src/db/migrations/index.ts";
import { isCode } from "../../src/errors/index.ts";
import { createCall } from "../../src/runtime/index.ts";
import { createServerDatabase } from "../server-database.ts";

/** A database engine under test. */
export interface EngineUnderTest extends AsyncDisposable {
  readonly location: DatabaseLocation;
  /** Of the server, as one who may create databases there. */
  readonly url: string;
}

const call = createCall();

/** What every engine has to do for stowage, the same on each. */
export function engineSuite(name: string, start: () => Promise<EngineUnderTest>): void {
  describe(name, () => {
    let engine: EngineUnderTest;
    let database: Database;

    beforeAll(async () => {
      engine = await start();
      database = await openDatabase(engine.location, { connectionsMax: 4 }, call);
    });
    afterAll(async () => {
      await database?.[Symbol.asyncDispose]();
      await engine?.[Symbol.asyncDispose]();
    });

    /** An empty database of its own for one test. */
    async function withFreshDatabase(work: (location: DatabaseLocation) => Promise<void>): Promise<void> {
      await using fresh = await createServerDatabase(engine.url);
      await work({ kind: "server", url: fresh.url });
    }

    describe("values", () => {
      test("bigint comes as a number, and one that a number can't hold is refused", async () => {
        const exact = await sql<{ n: number }>`select 9007199254740991::bigint as n, count(*) as c`.execute(
          database.sql,
        );
        expect(exact.rows).toEqual([{ n: Number.MAX_SAFE_INTEGER, c: 1 }]);
        const tooLarge = sql`select 9007199254740992::bigint as n`.execute(database.sql);
        await expect(tooLarge).rejects.toMatchObject({
          code: "DB_FAILED",
          message: expect.stringContaining("too large for a number"),
        });
        expect((await sql<{ n: number }>`select -5::bigint as n`.execute(database.sql)).rows).toEqual([{ n: -5 }]);
      });

      test("bytes, text, JSON and times come back as they went", async () => {
        const bytes = Buffer.concat([Buffer.from(Array.from({ length: 256 }, (_, n) => n)), randomBytes(1_000_000)]);
        const text = "\\x00 'quoted' \"double\" \n\t\u0001 \u{1f4a9} ﷽ %s $1";
        const time = new Date("2026-11-24T21:43:34.094Z");
        const json = { a: [1, "two", null], b: { c: text } };
        const { rows } = await sql`select ${bytes}::bytea as bytes, ${text}::text as text, ${time}::timestamptz as time,
          ${JSON.stringify(json)}::jsonb as json`.execute(database.sql);
        expect(rows).toEqual([{ bytes, text, time, json }]);
      });

      test("long bytes go beside short ones, nothing and text, time after time, and after a failure", async () => {
        await using one = await openDatabase(engine.location, { connectionsMax: 1 }, call);
        const long = randomBytes(200_000);
        const send = async (divisor: number) => {
          const fields = sql`${long}::bytea as long, ${null}::bytea as nothing, ${"text"}::text as text,
            ${Buffer.alloc(0)}::bytea as none, ${long.subarray(5, 100_005)}::bytea as part, 6 / ${divisor}::integer as quotient`;
          return (await sql`select ${fields}`.execute(one.sql)).rows;
        };
        const sent = { long, nothing: null, text: "text", none: Buffer.alloc(0), part: long.subarray(5, 100_005) };
        for (let times = 1; times <= 6; times++) {
          expect(await send(times)).toEqual([{ ...sent, quotient: Math.floor(6 / times) }]);
          await expect(send(0)).rejects.toMatchObject({ code: "DB_FAILED" });
        }
        expect((await Promise.all([send(2), send(3)])).flat()).toEqual([
          { ...sent, quotient: 3 },
          { ...sent, quotient: 2 },
        ]);
      });

      test("long bytes come in binary form: several rows, no bytes, and nothing", async () => {
        const rows = await database.binaryRows(`
          select n::bigint, case when n > 1 then decode(repeat('00ff', n * 100000), 'hex') end, ''::bytea
          from generate_series(1, 3) as n order by n`);
        const bytes = (n: number) => Buffer.alloc(n * 200_000, Buffer.from([0, 255]));
        expect(rows.map(([n]) => n?.readBigInt64BE())).toEqual([1n, 2n, 3n]);
        expect(rows.map(([, field]) => field?.equals(bytes(field.length / 200_000)) && field.length)).toEqual([
          undefined,
          400_000,
          600_000,
        ]);
        expect(rows.map(([, , none]) => none?.length)).toEqual([0, 0, 0]);
        expect(await database.binaryRows("select 1 where false")).toEqual([]);
      });

      test("a binary query that fails, at once or in the middle, is an error of ours", async () => {
        for (const query of ["select nonsense", "select 1 / (3 - n) from generate_series(1, 100000) as n"]) {
          await expect(database.binaryRows(query)).rejects.toMatchObject({ code: "DB_FAILED" });
        }
        expect(await database.binaryRows("select true")).toHaveLength(1);
      });

      test("text with a NUL is refused with an error of ours", async () => {
        const failure = await sql`select ${"a\0b"}::text`.execute(database.sql).catch((error: unknown) => error);
        expect(isCode(failure, "DB_FAILED")).toBe(true);
      });
    });

    describe("statements", () => {
      test("a failure is an error of ours with the server's SQLSTATE, and leaves the connection usable", async () => {
        const again = () =>
          database.sql.insertInto("layer_documents").values({ layer_key: "k", diff_id: "d", fingerprint: "f" });
        await again().execute();
        const failure = await again()
          .execute()
          .catch((error: unknown) => error);
        expect(isCode(failure, "DB_FAILED")).toBe(true);
        expect(sqlStateOf(failure)).toBe("23505");
        await database.sql.deleteFrom("layer_documents").execute();
      });

      test("what comes again and again is prepared once, and what fails then is an error of ours as before", async () => {
        await using one = await openDatabase(engine.location, { connectionsMax: 1 }, call);
        const divide = (by: number) => sql<{ n: number }>`select 12 / ${by}::integer as n`.execute(one.sql);
        for (let by = 1; by <= 6; by++) expect((await divide(by)).rows).toEqual([{ n: Math.floor(12 / by) }]);
        await expect(divide(0)).rejects.toMatchObject({ code: "DB_FAILED" });
        expect((await divide(4)).rows).toEqual([{ n: 3 }]);
        const { rows } = await sql`select statement from pg_prepared_statements`.execute(one.sql);
        expect(rows).toEqual([{ statement: "select 12 / $1::integer as n" }]);
      });

      test("a wait for another's lock has an end, and so has a lock whose holder hangs", async () => {
        const { rows } = await sql`select current_setting('lock_timeout') as waiting,
          current_setting('idle_in_transaction_session_timeout') as holding`.execute(database.sql);
        expect(rows).toEqual([{ waiting: "1min", holding: "30s" }]);
      });

      test("the pool is bounded", async () => {
        const seen = await Promise.all(
          Array.from({ length: 40 }, () => sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(database.sql)),
        );
        expect(new Set(seen.map(({ rows }) => rows[0]?.pid)).size).toBeLessThanOrEqual(4);
      });

      test("connections that the server ended while idle are replaced", async () => {
        await Promise.all(Array.from({ length: 4 }, () => sql`select 1`.execute(database.sql)));
        await terminateOthers(database);
        // The ends may arrive while a statement is on its way: that one fails, no later one.
        const isUp = () =>
          sql`select 1`.execute(database.sql).then(
            () => true,
            (error: unknown) => {
              expect(isCode(error, "DB_UNREACHABLE")).toBe(true);
              return false;
            },
          );
        for (let attempt = 0; attempt < 4 && !(await isUp()); attempt += 1);
        expect(await isUp()).toBe(true);
      });
    });

    describe("transactions", () => {
      const insert = (key: string) => ({ layer_key: key, diff_id: "d", fingerprint: "f" });
      const keys = async () => {
        const rows = await database.sql
          .selectFrom("layer_documents")
          .select("layer_key")
          .orderBy("layer_key")
          .execute();
        return rows.map((row) => row.layer_key);
      };

      test("commit what returns, roll back what throws", async () => {
        const result = await database.transaction(async (tx) => {
          await tx.sql.insertInto("layer_documents").values(insert("kept")).execute();
          return 7;
        }, call);
        expect(result).toBe(7);
        const failing = database.transaction(async (tx) => {
          await tx.sql.insertInto("layer_documents").values(insert("lost")).execute();
          throw new Error("no");
        }, call);
        await expect(failing).rejects.toThrow("no");
        expect(await keys()).toEqual(["kept"]);
        await database.sql.deleteFrom("layer_documents").execute();
      });

      test("an aborted call rolls back, also when its work did not notice", async () => {
        const abort = new AbortController();
        const aborted = database.transaction(
          async (tx) => {
            await tx.sql.insertInto("layer_documents").values(insert("lost")).execute();
            abort.abort();
          },
          createCall({ signal: abort.signal }),
        );
        await expect(aborted).rejects.toMatchObject({ code: "INPUT_INTERRUPTED" });
        expect(await keys()).toEqual([]);
        const late = database.transaction(async () => expect.unreachable(), createCall({ signal: abort.signal }));
        await expect(late).rejects.toMatchObject({ code: "INPUT_INTERRUPTED" });
      });

      test("are repeated whole on serialisation failures, at most five times, and on nothing else", async () => {
        const run = async (state: string, failures: number) => {
          let attempts = 0;
          const outcome = await database
            .transaction(async (tx) => {
              attempts += 1;
              await tx.sql
                .insertInto("layer_documents")
                .values(insert(`attempt ${attempts}`))
                .execute();
              if (attempts <= failures) {
                await sql.raw(`do $$ begin raise exception using errcode = '${state}'; end $$`).execute(tx.sql);
              }
            }, call)
            .then(
              () => "done",
              (error: unknown) => sqlStateOf(error),
            );
          return [attempts, outcome];
        };
        expect(await run("40001", 5)).toEqual([6, "done"]);
        expect(await keys()).toEqual(["attempt 6"]);
        await database.sql.deleteFrom("layer_documents").execute();
        expect(await run("40001", 99)).toEqual([6, "40001"]);
        expect(await run("23514", 99)).toEqual([1, "23514"]);
        expect(await keys()).toEqual([]);
      });

      test("a real deadlock is resolved by repeating the victim", async () => {
        await database.sql
          .insertInto("layer_documents")
          .values([insert("a"), insert("b")])
          .execute();
        let firsts = 0;
        const bothHaveOne = Promise.withResolvers<void>();
        const lockBoth = (order: readonly string[]) => {
          let isRepeat = false;
          return database.transaction(async (tx) => {
            for (const [index, key] of order.entries()) {
              await tx.sql
                .updateTable("layer_documents")
                .set({ fingerprint: order.join() })
                .where("layer_key", "=", key)
                .execute();
              if (index === 0 && !isRepeat) {
                isRepeat = true;
                firsts += 1;
                if (firsts === 2) bothHaveOne.resolve();
                await bothHaveOne.promise;
              }
            }
          }, call);
        };
        await Promise.all([lockBoth(["a", "b"]), lockBoth(["b", "a"])]);
        const winners = await database.sql.selectFrom("layer_documents").select("fingerprint").distinct().execute();
        expect(winners).toHaveLength(1);
        await database.sql.deleteFrom("layer_documents").execute();
      });
    });

    describe("locks", () => {
      test("exclusive keeps all others out, shared only exclusive ones", async () => {
        const other = await openDatabase(engine.location, {}, call);
        await using _closing = other;
        const attempt = async (mode: "exclusive" | "shared") => {
          await using lock = await other.lock("suite", mode, 0, call);
          return lock !== undefined;
        };
        {
          await using held = await database.lock("suite", "exclusive", 0, call);
          expect(held?.signal.aborted).toBe(false);
          expect([await attempt("exclusive"), await attempt("shared")]).toEqual([false, false]);
          await using another = await other.lock("suite, another", "exclusive", 0, call);
          expect(another).toBeDefined();
        }
        {
          await using held = await database.lock("suite", "shared", 0, call);
          expect(held).toBeDefined();
          expect([await attempt("exclusive"), await attempt("shared")]).toEqual([false, true]);
        }
        expect([await attempt("exclusive"), await attempt("shared")]).toEqual([true, true]);
      });

      test("whoever finds a lock taken learns by whom", async () => {
        const long = `stowage ${"x".repeat(100)}`;
        const names = ["stowage analyze 12@host", "stowage \u00e4\u0000", long];
        const others = await Promise.all(
          names.map((applicationName) => openDatabase(engine.location, { applicationName }, call)),
        );
        try {
          for (const other of others) await other.lock("suite", "shared", 0, call);
          await using _ = await database.lock("suite, another", "exclusive", 0, call);
          const holders = await database.holdersOf("suite");
          expect(holders.toSorted()).toEqual(["stowage ??", "stowage analyze 12@host", long.slice(0, 63)].toSorted());
          expect(await database.holdersOf("suite, another")).toEqual(["stowage"]);
          // Who only waits holds nothing.
          const abort = new AbortController();
          const waiting = database.lock("suite", "exclusive", 60_000, createCall({ signal: abort.signal }));
          await waiters(database, 1);
          expect(await database.holdersOf("suite")).toHaveLength(3);
          abort.abort();
          await expect(waiting).rejects.toMatchObject({ code: "INPUT_INTERRUPTED" });
        } finally {
          for (const other of others) await other[Symbol.asyncDispose]();
        }
        expect(await database.holdersOf("suite")).toEqual([]);
      });

      test("waiting ends with the lock, with the time, or with the call", async () => {
        const held = await database.lock("suite", "exclusive", 0, call);
        expect(await database.lock("suite", "exclusive", 20, call)).toBeUndefined();

        const abort = new AbortController();
        const interrupted = database.lock("suite", "exclusive", 60_000, createCall({ signal: abort.signal }));
        await waiters(database, 1);
        abort.abort();
        await expect(interrupted).rejects.toMatchObject({ code: "INPUT_INTERRUPTED" });
        await waiters(database, 0);

        const patient = database.lock("suite", "exclusive", 60_000, call);
        await waiters(database, 1);
        await held?.[Symbol.asyncDispose]();
        const got = await patient;
        expect(got).toBeDefined();
        await got?.[Symbol.asyncDispose]();
      });

      test("a lock whose connection is lost says so", async () => {
        const held = await database.lock("suite", "exclusive", 0, call);
        const lost = new Promise((resolve) => held?.signal.addEventListener("abort", resolve, { once: true }));
        await sql`select pg_terminate_backend(pid) from pg_locks where ${areOwnLocks}`.execute(database.sql);
        await lost;
        expect(held?.signal.reason).toMatchObject({ code: "DB_LOCK_LOST" });
        await held?.[Symbol.asyncDispose]();
        await using again = await database.lock("suite", "exclusive", 5000, call);
        expect(again).toBeDefined();
      });

      test("several locks of one process share a connection, exclude each other by name, and are lost together", async () => {
        const connections = async () => {
          const { rows } = await sql<{ pid: number }>`
            select distinct pid from pg_locks where ${areOwnLocks} and granted`.execute(database.sql);
          return rows.length;
        };
        const one = await database.lock("suite 1", "exclusive", 0, call);
        const two = await database.lock("suite 2", "exclusive", 0, call);
        expect([one, two].map((lock) => lock?.signal.aborted)).toEqual([false, false]);
        expect(await connections()).toBe(1);
        expect(await database.lock("suite 1", "exclusive", 0, call)).toBeUndefined();
        await one?.[Symbol.asyncDispose]();
        await one?.[Symbol.asyncDispose]();
        expect(await database.holdersOf("suite 1")).toEqual([]);
        expect(await database.holdersOf("suite 2")).toHaveLength(1);
        const again = await database.lock("suite 1", "exclusive", 0, call);
        await sql`select pg_terminate_backend(pid, 5000) from pg_locks where ${areOwnLocks}`.execute(database.sql);
        for (const [lock, name] of [
          [again, "suite 1"],
          [two, "suite 2"],
        ] as const) {
          if (lock?.signal.aborted === false) {
            await new Promise((resolve) => lock.signal.addEventListener("abort", resolve, { once: true }));
          }
          expect(lock?.signal.reason).toMatchObject({ code: "DB_LOCK_LOST", details: { lock: name } });
          await lock?.[Symbol.asyncDispose]();
          await using another = await database.lock(name, "exclusive", 5000, call);
          expect(another?.signal.aborted).toBe(false);
        }
        expect(await connections()).toBe(0);
        await expect(
          database.lock("suite 1", "exclusive", 0, createCall({ signal: AbortSignal.abort() })),
        ).rejects.toMatchObject({ code: "INPUT_INTERRUPTED" });
      });

      test("closing the database frees its locks", async () => {
        const other = await openDatabase(engine.location, {}, call);
        const held = await other.lock("suite", "exclusive", 0, call);
        expect(held).toBeDefined();
        await other[Symbol.asyncDispose]();
        await using again = await database.lock("suite", "exclusive", 0, call);
        expect(again).toBeDefined();
      });
    });

    describe("schema", () => {
      test("from empty, twice, and by several at once, to the same catalogue", async () => {
        const expected = await readCatalogue(database);
        await withFreshDatabase(async (location) => {
          const opened = await Promise.all([1, 2, 3].map(() => openDatabase(location, {}, call)));
          for (const each of opened) expect(await readCatalogue(each)).toEqual(expected);
          const ids = await Promise.all(
            opened.map((each) => each.sql.selectFrom("installations").select("id").execute()),
          );
          expect(new Set(ids.flat().map((row) => row.id)).size).toBe(1);
          for (const each of opened) await each[Symbol.asyncDispose]();
          await using again = await openDatabase(location, {}, call);
          expect(await readCatalogue(again)).toEqual(expected);
        });
      });

      test("the live catalogue is the one that tables.ts describes", async () => {
        expect(await readCatalogue(database)).toEqual(catalogue);
      });

      test("when it is up to date the check is one query", async () => {
        let statements = 0;
        const counting = {
          sql: database.sql.withPlugin({
            transformQuery: ({ node }) => {
              statements += 1;
              return node;
            },
            transformResult: async ({ result }) => result,
          }),
          lock: () => expect.unreachable(),
        };
        await migrate(counting, migrations, call);
        expect(statements).toBe(1);
      });

      const step = (name: string, isBreaking: boolean, statement: string): Migration => ({
        name,
        isBreaking,
        async up(db) {
          await sql.raw(statement).execute(db);
        },
      });

      test("a step that is not known here is refused if it is breaking, and accepted if not", async () => {
        await withFreshDatabase(async (location) => {
          const mild = step("9998-mild", false, "create table mild (n int)");
          const harsh = step("9999-harsh", true, "drop table mild");
          {
            await using newer = await openDatabase(location, {}, call);
            await migrate(newer, [...migrations, mild], call);
            await using older = await openDatabase(location, {}, call);
            expect(older.description).toContain("stowage_test_");
            await migrate(newer, [...migrations, mild, harsh], call);
          }
          await expect(openDatabase(location, {}, call)).rejects.toMatchObject({
            code: "DB_SCHEMA_NEWER",
            details: { found: "9999-harsh" },
          });
        });
      });

      test("a step that fails leaves nothing of itself and all of those before it", async () => {
        await withFreshDatabase(async (location) => {
          await using fresh = await openDatabase(location, {}, call);
          const good = step("9998-good", false, "create table good (n int)");
          const bad = step("9999-bad", false, "create table bad (n int); select 1/0");
          await expect(migrate(fresh, [...migrations, good, bad], call)).rejects.toMatchObject({ code: "DB_FAILED" });
          const { rows } = await sql`select to_regclass('good')::text as good, to_regclass('bad')::text as bad`.execute(
            fresh.sql,
          );
          expect(rows).toEqual([{ good: "good", bad: null }]);
          const names = await fresh.sql.selectFrom("schema_migrations").select("name").orderBy("name").execute();
          expect(names.map((row) => row.name)).toEqual([...migrations.map((each) => each.name), "9998-good"]);
        });
      });

      test("chunks are stored outside of the row and not compressed", async () => {
        const { rows } = await sql`select attstorage from pg_attribute
          where attrelid = 'object_chunks'::regclass and attname = 'bytes'`.execute(database.sql);
        expect(rows).toEqual([{ attstorage: "e" }]);
      });
    });
  });
}

/** The server may have other databases, where others hold locks. */
const areOwnLocks = sql<boolean>`
  locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`;

async function terminateOthers(database: Database): Promise<void> {
  await sql`select pg_terminate_backend(pid, 5000) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and application_name = 'stowage'`.execute(
    database.sql,
  );
}

/** Resolves when `count` sessions wait for an advisory lock. */
async function waiters(database: Database, count: number): Promise<void> {
  while (true) {
    const { rows } = await sql<{ n: number }>`select count(*) as n from pg_locks
      where ${areOwnLocks} and not granted`.execute(database.sql);
    if (rows[0]?.n === count) return;
  }
}

/** Columns as `table.column type`, with `?` for those that may be null. */
async function readCatalogue(database: Database): Promise<readonly string[]> {
  const { rows } = await sql<{ line: string }>`
    select table_name || '.' || column_name || ' ' || data_type || case is_nullable when 'YES' then '?' else '' end as line
    from information_schema.columns where table_schema = 'public' order by table_name collate "C", ordinal_position`.execute(
    database.sql,
  );
  return rows.map((row) => row.line);
}

/** What `src/db/tables.ts` says, in the catalogue's words. */
const columns: Readonly<Record<keyof Tables, string>> = {
  backends:
    "id integer, driver text, settings jsonb, mark uuid, generation integer, token uuid?, next_token uuid?, created_at time",
  image_layers:
    "account text, digest text, position integer, blob_digest text, blob_bytes bigint, media_type text, diff_id text, layer_key text?",
  image_tags: "account text, full_tag text, registry text, repository text, tag text, digest text, detected_at time",
  images:
    "account text, digest text, parent_digest text, image_id text, media_type text, os text, architecture text, variant text?, distro text?, distro_version text?, layer_count integer, file_count bigint, file_bytes bigint, blob_bytes bigint, package_count integer, package_counts jsonb, fingerprint text, damage text?, analyzed_at time, created_at time",
  installations: "id uuid, database_identity text?, created_at time",
  layer_access: "account text, blob_digest text, shown_at time",
  layer_documents: "layer_key text, diff_id text, fingerprint text, last_used_at time, created_at time",
  locations:
    "id bigint, backend_id integer, physical_key text, account text, bucket text, object_key text, state text, state_since time, writer text?, lease_until time?, codec text?, content_digest text?, content_bytes bigint?, stored_digest text?, stored_bytes bigint?, proven_at time?, damage text?, checked_at time?, created_at time, migration_id integer?",
  migration_moves:
    "migration_id integer, source_location_id bigint, account text, bucket text, object_key text, version bigint, source_backend_id integer, destination_backend_id integer, destination_location_id bigint?, content_digest text, content_bytes bigint, stored_bytes bigint, state text, attempts integer, error_code text?, error_text text?, updated_at time",
  migrations:
    "id integer, state text, source jsonb, destination jsonb, options jsonb, executor text, lives integer, objects bigint, bytes bigint, created_at time, started_at time?, ended_at time?, updated_at time",
  object_blobs: "physical_key text, bytes bigint, created_at time",
  object_chunks: "physical_key text, position integer, bytes bytea",
  objects: "account text, bucket text, key text, location_id bigint, version bigint, created_at time, updated_at time",
  schema_migrations: "name text, is_breaking boolean, applied_at time",
  scrub_findings: "scrub_id bigint, backend_id integer, physical_key text, kind text, detail text, bytes bigint?",
  scrubs:
    "id bigint, started_at time, ended_at time?, share double precision, seed integer, backend_id integer?, after_key text, objects bigint, bytes bigint",
  verified_pairs:
    "blob_digest text, diff_id text, blob_bytes bigint, layer_bytes bigint, verified_at time, announced_compression text?",
  write_redirects: "backend_id integer, bucket text, to_backend_id integer, migration_id integer",
};

const catalogue = Object.entries(columns).flatMap(([table, text]) =>
  text.split(", ").map((column) => `${table}.${column.replace(/ time(\??)$/, " timestamp with time zone$1")}`),
);
