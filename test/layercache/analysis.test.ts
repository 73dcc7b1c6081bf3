import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Analyzer } from "../../src/analysis/index.ts";
import { defaultLimits } from "../../src/config/index.ts";
import { type CachedLayers, type LayerCache, openLayerCache } from "../../src/layercache/index.ts";
import { DatabaseDriver } from "../../src/objects/drivers/db/index.ts";
import { openObjectStore } from "../../src/objects/index.ts";
import { openSource } from "../../src/oci/index.ts";
import { createCall, silentProgress } from "../../src/runtime/index.ts";
import { failureOf } from "../conformance/failure.ts";
import { startTestDatabase, type TestDatabase } from "../embedded-database.ts";
import { buildImage } from "../images/builder.ts";
import { sectionsOf } from "../objects/sections.ts";
import { startRegistry, type TestRegistry } from "../registry/registry-server.ts";
import { testSourceOptions } from "../registry/source-options.ts";

const call = createCall();
const image = buildImage({
  layers: [
    { content: [{ path: "big", content: randomBytes(900_000) }], compression: "gzip" },
    { content: [{ path: "etc/os-release", content: "ID=debian\n" }], compression: "none" },
  ],
});

let opened: TestDatabase;
let registry: TestRegistry;
let root: string;
let cache: LayerCache;

beforeAll(async () => {
  opened = await startTestDatabase();
});
beforeEach(async () => {
  await opened.clear();
  registry = await startRegistry();
  registry.push("team/app", image, "1");
  root = mkdtempSync(join(tmpdir(), "stowage-test-"));
  const tell = (text: string) => expect.fail(text);
  cache = await openLayerCache({ directory: join(root, "cache"), bytesMax: 5_000_000, tell }, call);
  return async () => {
    await cache[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
    rmSync(root, { recursive: true, force: true });
  };
});
afterAll(() => opened?.[Symbol.asyncDispose]());

/** Analyses the image as if for the first time. */
async function analyze() {
  await opened.clear();
  registry.requests.length = 0;
  const store = await openObjectStore({
    database: opened.database,
    sections: sectionsOf(new DatabaseDriver(opened.database)),
  });
  await using source = await openSource(`${registry.host}/team/app:1`, testSourceOptions(), call);
  await using analyzer = new Analyzer(opened.database, store, defaultLimits, root);
  const layers: CachedLayers = cache.before(source.layers);
  const request = {
    account: "admin",
    source: { ...source, resolve: source.resolve.bind(source), layers },
    platform: undefined,
    nameFor: () => undefined,
    progress: silentProgress,
  };
  const report = await analyzer.analyze(request, call);
  return { report, layers, downloads: registry.seen(/blobs/, "GET").length - configurations };
}
/** The configuration is a blob too, and small: it is read with the manifest. */
const configurations = 1;

function entries(): string[] {
  return image.layers.map(({ descriptor }) => join(root, "cache/sha256", descriptor.digest.slice("sha256:".length)));
}

describe("an analysis with the layer cache", () => {
  it("downloads a layer once, and finds the same", async () => {
    const cold = await analyze();
    expect([cold.downloads, cold.layers.hits]).toEqual([2, 0]);
    const warm = await analyze();
    expect([warm.downloads, warm.layers.hits]).toEqual([0, 2]);
    expect(warm.layers.bytesSaved).toBe(image.layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0));
    expect(outcome(warm.report)).toEqual(outcome(cold.report));
  });

  it("fetches again, unseen, what lies damaged in the cache", async () => {
    const cold = await analyze();
    const damages = [
      (path: string) => writeFileSync(path, readFileSync(path).fill(0x55, 700, 710)),
      (path: string) => writeFileSync(path, readFileSync(path).fill(0)),
      (path: string) => truncateSync(path, readFileSync(path).length - 1),
    ];
    for (const damage of damages) {
      for (const path of entries()) damage(path);
      const mended = await analyze();
      expect([mended.downloads, mended.layers.hits]).toEqual([2, 0]);
      expect(outcome(mended.report)).toEqual(outcome(cold.report));
    }
    const warm = await analyze();
    expect([warm.downloads, warm.layers.hits]).toEqual([0, 2]);
  });

  it("says of an image that is wrong what it says without", async () => {
    const wrong = buildImage({
      layers: [{ content: [{ path: "x", content: "1" }], diffId: `sha256:${"1".repeat(64)}` }],
    });
    registry.push("team/app", wrong, "1");
    for (const _ of ["cold", "warm"]) {
      const error = await failureOf(analyze());
      expect(error.code).toBe("IMAGE_DIGEST_MISMATCH");
    }
    // Its blob is sound, and stays.
    expect((await cache.stats(call)).entries).toBe(1);
  });

  it("serves nothing that the registry refuses", async () => {
    await analyze();
    for (const { descriptor } of image.layers) registry.blobs.delete(descriptor.digest);
    expect((await failureOf(analyze())).code).toBe("IMAGE_BLOB_MISSING");
  });
});

function outcome(report: Awaited<ReturnType<typeof analyze>>["report"]) {
  const { durationMs: _, layers, bytesStored: __, ...rest } = report;
  return { ...rest, bytesRead: undefined, layers: layers.map(({ diffId, entries: found }) => ({ diffId, found })) };
}
