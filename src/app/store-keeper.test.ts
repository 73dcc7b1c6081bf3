import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "kysely";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startTestDatabase, type TestDatabase } from "../../test/embedded-database.ts";
import { buildImage, writeLayout } from "../../test/images/builder.ts";
import { type Configuration, defaultConfiguration, defaultLimits, readEnvironment } from "../config/index.ts";
import { localfsDriver } from "../objects/drivers/localfs/index.ts";
import { createCall, silentProgress } from "../runtime/index.ts";
import { type Application, openApplication } from "./index.ts";

const call = createCall();
let opened: TestDatabase;
let directory: string;

beforeAll(async () => {
  opened = await startTestDatabase();
  directory = await mkdtemp(join(tmpdir(), "stowage-keeper-"));
  const shared = [{ path: "one", content: "1".repeat(10_000) }];
  writeLayout(join(directory, "layout"), [
    { image: buildImage({ layers: [shared, [{ path: "two", content: "2" }]] }), ref: "1" },
    { image: buildImage({ layers: [shared, [{ path: "three", content: "3" }]] }), ref: "2" },
  ]);
});
beforeEach(() => opened.clear());
afterAll(async () => {
  await opened?.[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

function open(configuration: Configuration = defaultConfiguration): Promise<Application> {
  return openApplication(
    {
      purpose: "test",
      configuration,
      database: { kind: "embedded", dataDirectory: opened.dataDirectory },
      limits: defaultLimits,
      temporaryDirectory: tmpdir(),
      credentials: readEnvironment({}).credentials,
    },
    call,
  );
}

/** A configuration whose objects lie in files. */
function files(name: string): Configuration {
  const config = localfsDriver.schema.parse({ archive_data_dir: join(directory, name) });
  return { ...defaultConfiguration, objectStore: { ...defaultConfiguration.objectStore, name: "localfs", config } };
}

const analyze = (application: Application, which: string) =>
  application.analyze(
    `oci:${join(directory, "layout")}:${which}`,
    { insecure: false, name: `example.com/x:${which}`, progress: silentProgress },
    call,
  );

const scrub = (application: Application, repair = false) =>
  application.objectStorage.scrub(
    { share: 1, repair, restart: false, begin: () => silentProgress.begin("", undefined), progress: silentProgress },
    call,
  );

const collect = (application: Application, compact = false) =>
  application.objectStorage.collectGarbage({ compact, progress: silentProgress }, call);

/** As if an hour had passed. */
async function pass(): Promise<void> {
  const { sql: queries } = opened.database;
  await sql`update locations set state_since = state_since - interval '1 hour'`.execute(queries);
  await sql`update layer_documents set last_used_at = last_used_at - interval '1 hour'`.execute(queries);
}

async function keys(bucket: string): Promise<readonly string[]> {
  const rows = await opened.database.sql
    .selectFrom("locations")
    .where("bucket", "=", bucket)
    .where("state", "=", "live")
    .select("physical_key")
    .orderBy("id")
    .execute();
  return rows.map(({ physical_key }) => physical_key);
}

/** Of the layer that both images have. */
async function sharedLayer(): Promise<readonly string[]> {
  const { rows } = await sql<{ key: string }>`select physical_key as key from locations where object_key in
    (select layer_key from image_layers group by layer_key having count(*) = 2)`.execute(opened.database.sql);
  return rows.map(({ key }) => key);
}

async function damagedTags(application: Application): Promise<readonly string[]> {
  const tags: string[] = [];
  for await (const { damage, fullTags } of application.listImages(call))
    if (damage !== undefined) tags.push(...fullTags);
  return tags.toSorted();
}

describe("a lost document", () => {
  const spoil = {
    damaged: (key: string) =>
      sql`update object_chunks set bytes = set_byte(bytes, octet_length(bytes) / 2, 255 - get_byte(bytes, octet_length(bytes) / 2))
        where physical_key = ${key}`,
    missing: (key: string) => sql`delete from object_blobs where physical_key = ${key}`,
  };
  const buckets = ["layer_data", "analysis_data", "manifest_data"] as const;
  test.each(buckets.flatMap((bucket) => (["damaged", "missing"] as const).map((how) => [bucket, how] as const)))(
    "%s, %s: found, its images marked, and whole again once they are analysed",
    async (bucket, how) => {
      await using application = await open();
      await analyze(application, "1");
      await analyze(application, "2");
      const [key = ""] = bucket === "layer_data" ? await sharedLayer() : await keys(bucket);
      await spoil[how](key).execute(opened.database.sql);
      const marked = bucket === "layer_data" ? ["example.com/x:1", "example.com/x:2"] : ["example.com/x:1"];

      expect(await scrub(application)).toMatchObject({ damaged: 1, damagedImages: 0, givenUp: 0 });
      expect(await damagedTags(application)).toEqual([]);
      const repaired = await scrub(application, true);
      expect(repaired).toMatchObject({ givenUp: 1, repaired: 0, damagedImages: marked.length });
      expect(repaired.images.flatMap(({ fullTags }) => fullTags).toSorted()).toEqual(marked);
      expect(await damagedTags(application)).toEqual(marked);

      const report = await analyze(application, "1");
      expect(report.wasKnown).toBe(false);
      expect(report.layers.filter(({ outcome }) => outcome === "analyzed")).toHaveLength(
        bucket === "layer_data" ? 1 : 0,
      );
      expect(await damagedTags(application)).toEqual([]);
      expect(await scrub(application)).toMatchObject({ damaged: 0, damagedImages: 0 });
      expect((await analyze(application, "2")).wasKnown).toBe(true);
    },
  );

  test("of two layers: an image is whole when both are there again", async () => {
    await using application = await open();
    await analyze(application, "1");
    await analyze(application, "2");
    const lost = await keys("layer_data");
    expect(lost).toHaveLength(3);
    for (const key of lost) await spoil.damaged(key).execute(opened.database.sql);
    expect(await scrub(application, true)).toMatchObject({ givenUp: 3, damaged: 0, damagedImages: 2 });
    await analyze(application, "1");
    expect(await damagedTags(application)).toEqual(["example.com/x:2"]);
    await analyze(application, "2");
    expect(await damagedTags(application)).toEqual([]);
    expect(await scrub(application)).toMatchObject({ damaged: 0 });
  });

  test("a mark goes with the image", async () => {
    await using application = await open();
    await analyze(application, "1");
    const [key = ""] = await keys("analysis_data");
    await spoil.damaged(key).execute(opened.database.sql);
    expect(await scrub(application, true)).toMatchObject({ damagedImages: 1 });
    await expect(application.getImage("example.com/x:1", call)).rejects.toMatchObject({
      code: "OBJECT_DIGEST_MISMATCH",
      hint: "its analysis document is damaged: analyse it again, with: stowage analyze example.com/x:1",
    });
    await application.deleteImage("example.com/x:1", call);
    expect(await scrub(application)).toMatchObject({ damaged: 0, damagedImages: 0 });
  });
});

describe("garbage", () => {
  async function blobBytes(): Promise<number> {
    const { rows } = await sql<{
      bytes: number;
    }>`select coalesce(sum(bytes), 0)::bigint as bytes from object_blobs`.execute(opened.database.sql);
    return rows[0]?.bytes ?? 0;
  }

  test("all that images needed is back once they are deleted, and the database's files shrink", async () => {
    await using application = await open();
    await analyze(application, "1");
    await analyze(application, "2");
    const kept = await blobBytes();
    expect(kept).toBeGreaterThan(0);
    await application.deleteImage("example.com/x:1", call);
    await application.deleteImage("example.com/x:2", call);

    const now = await application.objectStorage.previewGarbage(call);
    expect(now.unusedLayers).toMatchObject({ due: { documents: 0, bytes: 0 }, later: { documents: 3 } });
    expect(now.unusedLayers.later.dueInSeconds).toBeGreaterThan(800);
    expect(now.stored).toMatchObject([{ state: "retired", isDue: false, locations: 4, place: "db" }]);
    expect(await collect(application)).toMatchObject({ layersRetired: 0, reclaimed: [], failures: [] });
    expect(await blobBytes()).toBe(kept);

    await pass();
    const later = await application.objectStorage.previewGarbage(call);
    expect(later.unusedLayers).toMatchObject({ due: { documents: 3 }, later: { documents: 0 } });
    const due = later.stored.reduce((sum, { isDue, bytes }) => sum + (isDue ? bytes : 0), 0);
    expect(due + later.unusedLayers.due.bytes).toBe(kept);
    const first = await collect(application);
    expect(first).toMatchObject({ layersRetired: 3, reclaimed: [{ place: "db", blobs: 4, bytes: due }] });
    expect(first.left.stored).toMatchObject([{ state: "retired", isDue: false, locations: 3 }]);

    await pass();
    const second = await collect(application, true);
    expect(second).toMatchObject({
      reclaimed: [{ blobs: 3 }],
      left: { stored: [], unusedLayers: { due: { documents: 0 } } },
    });
    expect(await blobBytes()).toBe(0);
    const { bytesBefore = 0, bytesAfter = 0 } = second.compaction ?? {};
    expect(bytesAfter).toBeLessThan(bytesBefore);
    const usage = await application.objectStorage.usage(true, call);
    expect(usage.groups).toEqual([]);
  });

  test("a backend that can't be dealt with is told, and does not keep the command", async () => {
    await using application = await open(files("lost"));
    await analyze(application, "1");
    await application.deleteImage("example.com/x:1", call);
    await pass();
    await rm(join(directory, "lost"), { recursive: true });
    await using again = await open(files("lost"));
    const report = await collect(again);
    expect(report.failures).toMatchObject([
      { place: expect.stringContaining("lost"), error: { code: "BACKEND_FOREIGN" } },
    ]);
    expect(report.reclaimed).toEqual([]);
    expect(report.left.stored.some(({ isDue, locations }) => isDue && locations === 2)).toBe(true);
  });

  test("a place that was only misspelt once, and never reached, is told of by nobody", async () => {
    await (await open(files("misspelt")))[Symbol.asyncDispose]();
    await using first = await open(files("used"));
    await analyze(first, "1");
    await using application = await open();
    for (const look of [true, false]) {
      const { backends } = await application.objectStorage.usage(look, call);
      expect(backends.map(({ place, isConfigured }) => [place, isConfigured])).toEqual([
        ["db", true],
        [expect.stringContaining("used"), false],
      ]);
    }
  });
});
