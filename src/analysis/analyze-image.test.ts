import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { sql } from "kysely";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startTestDatabase, type TestDatabase } from "../../test/embedded-database.ts";
import { buildImage, buildIndex, type LayerSpec, mediaTypes, writeLayout } from "../../test/images/builder.ts";
import { sectionsOf } from "../../test/objects/sections.ts";
import { defaultLimits, readEnvironment } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import { Images, indexRef } from "../images/index.ts";
import { DatabaseDriver } from "../objects/drivers/db/index.ts";
import { type ObjectStore, openObjectStore } from "../objects/index.ts";
import { type LayerSource, openSource } from "../oci/index.ts";
import { type Call, createCall, onStep, silentProgress as progress } from "../runtime/index.ts";
import { Analyzer, retireUnusedLayers } from "./index.ts";

const call = createCall();
const account = "admin";

let opened: TestDatabase;
let layout: string;
let indexDigest: string;
beforeAll(async () => {
  opened = await startTestDatabase();
  layout = await mkdtemp(join(tmpdir(), "stowage-analysis-"));
  const layers = [[{ path: "one", content: "1" }], [{ path: "two", content: "2" }]];
  const image = buildImage({ layers });
  const other = buildImage({ layers, config: { author: "somebody else" } });
  const lies = (lie: Partial<LayerSpec>) =>
    buildImage({ layers: [{ content: [{ path: "one", content: "1" }], ...lie }] });
  const index = buildIndex([image]);
  indexDigest = index.descriptor.digest;
  writeLayout(layout, [
    { image, ref: "x" },
    { image: other, ref: "other" },
    { image: index, ref: "index" },
    { image: lies({ size: 0 }), ref: "no bytes" },
    { image: lies({ size: 100_000 }), ref: "too many bytes" },
    { image: lies({ mediaType: `${mediaTypes.ociLayer}+zstd` }), ref: "zstd" },
    { image: lies({ mediaType: mediaTypes.ociLayer }), ref: "plain" },
    { image: lies({ mediaType: mediaTypes.dockerLayer }), ref: "whatever" },
  ]);
});
beforeEach(() => opened.clear());
afterAll(async () => {
  await rm(layout, { recursive: true, force: true });
  await opened?.[Symbol.asyncDispose]();
});

describe("deletion in the middle of an analysis", () => {
  test("of the image that is known already: it is there afterwards", async () => {
    const store = await openStore();
    await analyze(store);
    let deletions = 0;
    const racing: ObjectStore = {
      ...facesOf(store),
      async get(ref, under) {
        const found = await store.get(ref, under);
        // The analysis has found the image and read its document; now it goes.
        if (ref.bucket === "analysis_data" && deletions++ === 0) await deleteImage(store, ref.key);
        return found;
      },
    };
    const report = await analyze(racing);
    expect(deletions).toBeGreaterThan(0);
    expect(report.wasKnown).toBe(false);
    await expectWhole(store, report.digest);
  });

  test("of a layer's document: it is made again", async () => {
    const store = await openStore();
    let retired = 0;
    const racing: ObjectStore = {
      ...facesOf(store),
      async stage(ref, body, under) {
        if (ref.bucket === "analysis_data" && retired === 0) {
          await sql`update layer_documents set last_used_at = 'epoch'`.execute(opened.database.sql);
          retired += await retireUnusedLayers(opened.database, store, { limit: 100, isAlone: false }, call);
        }
        return store.stage(ref, body, under);
      },
    };
    const report = await analyze(racing);
    expect(retired).toBe(2);
    expect(report.layers.map(({ outcome }) => outcome)).toEqual(["analyzed", "analyzed"]);
    await expectWhole(store, report.digest);
  });
});

describe("a document that is damaged", () => {
  const damages: Readonly<Record<string, (bucket: string) => Promise<unknown>>> = {
    "has a wrong byte": (bucket) =>
      sql`
        update object_chunks set bytes = set_byte(bytes, 20, (get_byte(bytes, 20) + 1) % 256)
        where physical_key in (select physical_key from locations where bucket = ${bucket})
      `.execute(opened.database.sql),
    "has lost its bytes": async (bucket) => {
      const keys = sql`select physical_key from locations where bucket = ${bucket}`;
      await sql`delete from object_chunks where physical_key in (${keys})`.execute(opened.database.sql);
      await sql`delete from object_blobs where physical_key in (${keys})`.execute(opened.database.sql);
    },
    "is not there": (bucket) => sql`delete from objects where bucket = ${bucket}`.execute(opened.database.sql),
  };
  describe.each(Object.keys(damages))("because it %s", (name) => {
    const damage = damages[name] as (bucket: string) => Promise<unknown>;

    test("of a layer: analysing the image again reads the layers again", async () => {
      const store = await openStore();
      await analyze(store);
      await damage("layer_data");
      const report = await analyze(store);
      expect(report.layers.map(({ outcome }) => outcome)).toEqual(["analyzed", "analyzed"]);
      await expectWhole(store, report.digest);
      expect((await analyze(store)).wasKnown).toBe(true);
    });

    test("of a layer, seen by another image that shares it: it is read again, and the first image is whole too", async () => {
      const store = await openStore();
      const { digest } = await analyze(store);
      await damage("layer_data");
      const other = await analyze(store, "other");
      expect(other.layers.map(({ outcome }) => outcome)).toEqual(["analyzed", "analyzed"]);
      await expectFiles(store, digest);
    });

    test.each(["analysis_data", "manifest_data", "parent_manifest_data"])(
      "of the image, %s: it is made again",
      async (bucket) => {
        const store = await openStore();
        await analyze(store, "index");
        await damage(bucket);
        const report = await analyze(store, "index");
        expect(report.wasKnown).toBe(false);
        expect(report.layers.map(({ outcome }) => outcome)).toEqual(["reused", "reused"]);
        await expectWhole(store, report.digest);
        expect((await analyze(store, "index")).wasKnown).toBe(true);
      },
    );
  });
});

test("an image known already and then found through an index is known by the index too, and goes on being so", async () => {
  const store = await openStore();
  const { digest } = await analyze(store);
  const images = new Images(opened.database, store);
  expect((await images.get(account, digest, undefined)).parentDigest).toBe(digest);
  const report = await analyze(store, "index");
  expect(report).toMatchObject({ digest, wasKnown: true });
  expect((await images.get(account, indexDigest, undefined)).digest).toBe(digest);
  const { body } = await store.get(indexRef(account, digest), call);
  expect(
    `sha256:${createHash("sha256")
      .update(await buffer(body))
      .digest("hex")}`,
  ).toBe(indexDigest);
  await analyze(store);
  expect((await images.get(account, digest, undefined)).parentDigest).toBe(indexDigest);
});

describe("a known layer under a descriptor that lies", () => {
  test.each([
    ["no bytes", "IMAGE_SIZE_MISMATCH"],
    ["too many bytes", "IMAGE_SIZE_MISMATCH"],
    ["zstd", "LAYER_COMPRESSION_INVALID"],
    ["plain", "LAYER_COMPRESSION_INVALID"],
  ])("%s: is refused, as it is where the layer is new", async (ref, code) => {
    const store = await openStore();
    await expect(analyze(store, ref)).rejects.toMatchObject({ code });
    await analyze(store);
    await expect(analyze(store, ref)).rejects.toMatchObject({ code });
    expect((await analyze(store, "other")).layers.map(({ outcome }) => outcome)).toEqual(["reused", "reused"]);
  });

  test("serves again where the media type says nothing, and is read once more where it says more than before", async () => {
    const store = await openStore();
    const outcomes = async (ref: string) => (await analyze(store, ref)).layers.map(({ outcome }) => outcome);
    expect(await outcomes("whatever")).toEqual(["analyzed"]);
    expect(await outcomes("x")).toEqual(["analyzed", "analyzed"]);
    expect(await outcomes("other")).toEqual(["reused", "reused"]);
    await sql`delete from images`.execute(opened.database.sql);
    expect(await outcomes("whatever")).toEqual(["reused"]);
  });
});

describe("layers that nobody needs", () => {
  test("go when no image stands on them and nobody used them lately, at most so many", async () => {
    const store = await openStore();
    const { digest } = await analyze(store);
    const retire = (limit: number) => retireUnusedLayers(opened.database, store, { limit, isAlone: false }, call);
    await sql`update layer_documents set last_used_at = 'epoch'`.execute(opened.database.sql);
    expect(await retire(100)).toBe(0);
    await deleteImage(store, digest);
    await sql`update layer_documents set last_used_at = now()`.execute(opened.database.sql);
    expect(await retire(100)).toBe(0);
    await sql`update layer_documents set last_used_at = 'epoch'`.execute(opened.database.sql);
    expect(await retire(1)).toBe(1);
    expect(await retire(100)).toBe(1);
    const { rows } = await sql`select 1 from objects`.execute(opened.database.sql);
    expect(rows).toEqual([]);
  });
});

test("several analyses of one image at once, and deletions of it, leave it whole or absent", async () => {
  const store = await openStore();
  const { digest } = await analyze(store);
  for (let round = 0; round < 5; round++) {
    await Promise.all([analyze(store), deleteImage(store, digest), analyze(store)]);
    const found = await new Images(opened.database, store).get(account, digest, undefined).catch(() => undefined);
    if (found) await expectWhole(store, digest);
    else {
      const { rows } = await sql`select 1 from objects where bucket <> 'layer_data'`.execute(opened.database.sql);
      expect(rows).toEqual([]);
    }
  }
});

describe("images at once in one process", () => {
  test("read a layer that they share once, and an image with two names once", async () => {
    const store = await openStore();
    await using analyzer = new Analyzer(opened.database, store, defaultLimits, tmpdir());
    const read: unknown[] = [];
    const stop = onStep(({ name, fields }) => {
      if (name === "analysis layer read") read.push(fields.layerKey);
    });
    const reports = await Promise.all(["x", "other", "index", "x"].map((ref) => analyze(store, ref, analyzer)));
    stop();
    expect(read).toHaveLength(2);
    expect(new Set(read).size).toBe(2);
    // The other one has another configuration.
    expect(reports.filter(({ wasKnown }) => !wasKnown)).toHaveLength(2);
    for (const { digest } of reports) await expectFiles(store, digest);
  });

  test("go on with a layer that another one of them could not read", async () => {
    const store = await openStore();
    await using analyzer = new Analyzer(opened.database, store, defaultLimits, tmpdir());
    const isAsked = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    const failing = analyze(store, "x", analyzer, async () => {
      isAsked.resolve();
      await release.promise;
      throw new StowageError("REGISTRY_UNREACHABLE", { host: "gone" });
    });
    await isAsked.promise;
    const other = analyze(store, "other", analyzer);
    release.resolve();
    await expect(failing).rejects.toMatchObject({ code: "REGISTRY_UNREACHABLE" });
    expect((await other).layers.map(({ outcome }) => outcome)).toEqual(["analyzed", "analyzed"]);
  });

  test("end at once when they are stopped, those that wait for a layer of another too", async () => {
    const store = await openStore();
    await using analyzer = new Analyzer(opened.database, store, defaultLimits, tmpdir());
    const abort = new AbortController();
    const isAsked = Promise.withResolvers<void>();
    const stopped = createCall({ signal: abort.signal });
    const never = async (_: unknown, under: Call) => {
      isAsked.resolve();
      await new Promise<void>((resolve) => under.signal.addEventListener("abort", () => resolve()));
      throw new Error("aborted");
    };
    const analyses = ["x", "other", "index"].map((ref) => analyze(store, ref, analyzer, never, stopped));
    await isAsked.promise;
    abort.abort(new StowageError("INPUT_INTERRUPTED", { what: "test" }));
    for (const outcome of await Promise.allSettled(analyses)) {
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "INPUT_INTERRUPTED" } });
    }
  });
});

function openStore() {
  return openObjectStore({ database: opened.database, sections: sectionsOf(new DatabaseDriver(opened.database)) });
}

/** The store's methods as own properties, so that some can be replaced. */
function facesOf(store: ObjectStore): ObjectStore {
  return {
    stage: (ref, body, under) => store.stage(ref, body, under),
    publish: (tx, staged) => store.publish(tx, staged),
    get: (ref, under) => store.get(ref, under),
    find: (ref, under) => store.find(ref, under),
    relocate: (tx, version, copy) => store.relocate(tx, version, copy),
    retire: (tx, ref) => store.retire(tx, ref),
    reap: (limit, under) => store.reap(limit, under),
  };
}

async function analyze(
  store: ObjectStore,
  ref = "x",
  shared?: Analyzer,
  openFile?: LayerSource["openFile"],
  under = call,
) {
  const { credentials } = readEnvironment({});
  const options = { insecure: false, credentials, limits: defaultLimits, temporaryDirectory: tmpdir(), progress };
  await using found = await openSource(`oci:${layout}:${ref}`, options, call);
  const source = openFile === undefined ? found : { ...found, layers: { ...found.layers, openFile } };
  await using own = shared ? undefined : new Analyzer(opened.database, store, defaultLimits, tmpdir());
  const analyzer = (shared ?? own) as Analyzer;
  const name = { fullTag: "docker.io/library/x:1", registry: "docker.io", repository: "library/x", tag: "1" };
  return await analyzer.analyze({ account, source, platform: undefined, nameFor: () => name, progress }, under);
}

async function deleteImage(store: ObjectStore, digest: string): Promise<void> {
  const images = new Images(opened.database, store);
  const image = await images.get(account, digest, undefined).catch(() => undefined);
  if (image) await opened.database.transaction((tx) => images.remove(tx, image), call);
}

async function expectWhole(store: ObjectStore, digest: string): Promise<void> {
  const images = new Images(opened.database, store);
  const image = await images.get(account, digest, undefined);
  expect(image.fullTags).toEqual(["docker.io/library/x:1"]);
  expect((await images.document(image, call)).facts.digest).toBe(digest);
  await expectFiles(store, digest);
}

async function expectFiles(store: ObjectStore, digest: string): Promise<void> {
  const images = new Images(opened.database, store);
  let files = 0;
  for await (const _ of images.files(await images.get(account, digest, undefined), call)) files++;
  expect(files).toBe(2);
}
