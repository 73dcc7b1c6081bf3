import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { buildImage } from "../../test/images/builder.ts";
import { startRegistry, type TestRegistry } from "../../test/registry/registry-server.ts";
import { defaultConfiguration, defaultLimits, readEnvironment } from "../config/index.ts";
import { createCall, silentProgress } from "../runtime/index.ts";
import { Ahead } from "./ahead.ts";
import { openApplication } from "./index.ts";

const call = createCall();
const image = buildImage({
  layers: [
    [{ path: "one", content: "1" }],
    [{ path: "two", content: "2".repeat(2000) }],
    [{ path: "three", content: "3" }],
  ],
});
const blobs = new Set(image.layers.map(({ descriptor }) => descriptor.digest));
const request = { insecure: false, progress: silentProgress };

let directory: string;
let registry: TestRegistry;
let source: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "stowage-ahead-"));
  registry = await startRegistry();
  registry.push("team/app", image, "1");
  source = `${registry.host}/team/app:1`;
});
beforeEach(() => {
  registry.requests.length = 0;
});
afterAll(async () => {
  await registry?.[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

const optionsOf = (dataDirectory: string, first = { source, ...request }) => ({
  purpose: "test",
  configuration: defaultConfiguration,
  database: { kind: "embedded", dataDirectory } as const,
  limits: defaultLimits,
  temporaryDirectory: directory,
  credentials: readEnvironment({}).credentials,
  willAnalyze: { first },
});

/** Layers that were asked for, each as often as it was. */
const layersRead = () =>
  registry.requests.flatMap(({ path }) => [...blobs].filter((digest) => path.endsWith(`/blobs/${digest}`)));

describe("before there is a database", () => {
  test("that can't know anything, the largest layers are read", async () => {
    await using ahead = new Ahead(optionsOf("unused"), call);
    ahead.begin(true);
    const { concurrency } = (await ahead.threads) ?? { concurrency: 0 };
    await vi.waitFor(() => expect(layersRead()).toHaveLength(Math.min(concurrency, blobs.size)), { timeout: 30_000 });
    expect(layersRead()).toContain(image.layers[1]?.descriptor.digest);
  });

  test("that may know them, the image is found and no layer read", async () => {
    await using ahead = new Ahead(optionsOf("unused"), call);
    ahead.begin(false);
    ahead.begin(true);
    await vi.waitFor(() => expect(registry.seen(/\/blobs\//)).toHaveLength(1), { timeout: 30_000 });
    expect(ahead.take({ source: `${source}0`, ...request }, call)).toBeUndefined();
    expect(ahead.take({ source, ...request, platform: "linux/arm64" }, call)).toBeUndefined();
    const taken = await ahead.take({ source, ...request }, call);
    expect((await taken?.resolve(undefined, call))?.digest).toBe(image.descriptor.digest);
    expect(ahead.take({ source, ...request }, call)).toBeUndefined();
    expect(registry.requests).toHaveLength(2);
    expect(layersRead()).toEqual([]);
  });
});

describe("an application that makes its database", () => {
  test("reads each layer once, and finds all", async () => {
    const dataDirectory = await mkdtemp(join(tmpdir(), "stowage-ahead-db-"));
    try {
      await using application = await openApplication(optionsOf(dataDirectory), call);
      const report = await application.analyze(source, request, call);
      expect(report).toMatchObject({ digest: image.descriptor.digest, files: 3 });
      expect(report.layers.map(({ outcome, bytesRead }) => [outcome, bytesRead])).toEqual(
        image.layers.map(({ descriptor }) => ["analyzed", descriptor.size]),
      );
      expect(layersRead().toSorted()).toEqual([...blobs].toSorted());
      const again = await application.analyze(source, request, call);
      expect(again.wasKnown).toBe(true);
    } finally {
      await rm(dataDirectory, { recursive: true, force: true });
    }
  });

  test("ends with the database's error, and leaves nothing open", async () => {
    const file = join(directory, "file");
    await writeFile(file, "");
    const before = await readdir(directory);
    await expect(openApplication(optionsOf(join(file, "data")), call)).rejects.toMatchObject({
      code: "DB_EMBEDDED_FAILED",
    });
    expect(await readdir(directory)).toEqual(before);
  });

  test("tells of a bad source to whoever analyses it", async () => {
    const dataDirectory = await mkdtemp(join(tmpdir(), "stowage-ahead-db-"));
    const bad = `oci:${join(directory, "none")}`;
    try {
      await using application = await openApplication(optionsOf(dataDirectory, { source: bad, ...request }), call);
      await expect(application.analyze(bad, request, call)).rejects.toMatchObject({ code: "IMAGE_SOURCE_UNREADABLE" });
      expect((await application.analyze(source, request, call)).files).toBe(3);
    } finally {
      await rm(dataDirectory, { recursive: true, force: true });
    }
  });
});
