import { sql } from "kysely";
import { expect, test } from "vitest";
import { type DriverUnderTest, describeDriver } from "../../../../test/conformance/driver-suite.ts";
import { startTestDatabase } from "../../../../test/embedded-database.ts";
import { createServerDatabase } from "../../../../test/server-database.ts";
import { type Database, openDatabase } from "../../../db/index.ts";
import { createCall } from "../../../runtime/index.ts";
import { createPhysicalKey, type ForeignBlob } from "../../index.ts";
import { DatabaseDriver } from "./index.ts";

async function insertChunks(database: Database, key: string, lengths: readonly number[]): Promise<void> {
  for (const [position, length] of lengths.entries()) {
    await sql`insert into object_chunks values (${key}, ${position}, ${Buffer.alloc(length)})`.execute(database.sql);
  }
}

function driverOn(database: Database, opened: AsyncDisposable): DriverUnderTest {
  return {
    driver: new DatabaseDriver(database),
    chunkBytes: 256 * 1024,
    async remains() {
      const { rows } = await sql<{ what: string }>`
        select 'blob ' || physical_key as what from object_blobs
        union all select 'chunk ' || physical_key || '/' || position from object_chunks`.execute(database.sql);
      return rows.map(({ what }) => what);
    },
    async litter(partOf) {
      await insertChunks(database, partOf, [1000, 10]);
      return {
        foreign: [{ name: `object_chunks ${partOf}`, sizeBytes: 1010, partOf }],
        async [Symbol.asyncDispose]() {
          await sql`delete from object_chunks where physical_key = ${partOf}`.execute(database.sql);
        },
      };
    },
    [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
  };
}

describeDriver("the db driver on the embedded database", async () => {
  const opened = await startTestDatabase();
  return driverOn(opened.database, opened);
});

test("chunks behind the end of a blob, and a blob of another length than its row says, are named", async () => {
  await using opened = await startTestDatabase();
  const driver = new DatabaseDriver(opened.database);
  const [longer, shorter] = ["a".repeat(32), "b".repeat(32)];
  await insertChunks(opened.database, longer, [100, 30]);
  await insertChunks(opened.database, shorter, [50]);
  await sql`insert into object_blobs values (${longer}, 100), (${shorter}, 70)`.execute(opened.database.sql);
  const foreign: ForeignBlob[] = [];
  for await (const page of driver.listForeign(createCall())) foreign.push(...page);
  expect(foreign).toEqual([
    { name: `object_chunks ${longer} behind byte 100`, sizeBytes: 30 },
    { name: `object_blobs ${shorter}: 70 bytes, of 50 there`, sizeBytes: 0 },
  ]);
});

test("what is long, or may be, is not deleted with others", async () => {
  await using opened = await startTestDatabase();
  const driver = new DatabaseDriver(opened.database);
  const sizes = [1000, 4 * 1024 * 1024, 4 * 1024 * 1024 + 1, undefined];
  const blobs = sizes.map((sizeBytes) => ({ key: createPhysicalKey(), sizeBytes }));
  const call = createCall();
  expect([...(await driver.purgeMany(blobs, call))]).toEqual(blobs.slice(0, 2).map(({ key }) => key));
  expect((await driver.purgeMany(blobs.slice(2), call)).size).toBe(0);
});

const url = process.env.STOWAGE_TEST_POSTGRES_URL;
const isRequired = (process.env.STOWAGE_TEST_REQUIRE ?? "").split(",").includes("postgres");

if (url !== undefined) {
  describeDriver("the db driver on an external PostgreSQL", async () => {
    await using opening = new AsyncDisposableStack();
    const own = opening.use(await createServerDatabase(url));
    const database = opening.use(await openDatabase({ kind: "server", url: own.url }, {}, createCall()));
    return driverOn(database, opening.move());
  });
} else if (isRequired) {
  test("the db driver on an external PostgreSQL", () => {
    expect.fail("STOWAGE_TEST_REQUIRE names postgres, but STOWAGE_TEST_POSTGRES_URL is not set");
  });
} else {
  test.skip("the db driver on an external PostgreSQL: SKIPPED, set STOWAGE_TEST_POSTGRES_URL to a superuser's URL of an empty database", () => {});
}
