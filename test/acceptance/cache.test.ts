import { EventEmitter } from "node:events";
import { mkdir, open, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type BuiltImage, buildImage, ociArchive, sha256 } from "../images/builder.ts";
import { mountSmallVolume } from "../layercache/small-volume.ts";
import { type RecordedRequest, TestRegistry } from "../registry/registry-server.ts";
import { documentOf, ended, startStowage, stowage, temporaryDirectory } from "./command.ts";
import { type Images, writeImages } from "./images.ts";

let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
let registry: TestRegistry;
let images: Images;
let image: BuiltImage;
let reference: string;
/** A directory for each test: what one leaves in its cache is nothing to the next. */
let tmp: string;
let config: string;
let tests = 0;
let databases = 0;

const requests = new EventEmitter();

/** Resolves when the registry is asked for something. */
function firstRequest(method: string, part: string): Promise<void> {
  return new Promise((resolve) => {
    requests.on("request", function listen(request: RecordedRequest) {
      if (request.method !== method || !request.path.includes(part)) return;
      requests.off("request", listen);
      resolve();
    });
  });
}

const layerBytes = () => image.layers.reduce((sum, { blob }) => sum + blob.length, 0);

beforeAll(async () => {
  directory = await temporaryDirectory();
  images = writeImages(join(directory.path, "layout"));
  image = images.first;
  registry = await new TestRegistry({
    intercept: (request) => {
      requests.emit("request", request);
      return undefined;
    },
  }).listen();
  registry.push("app", images.first, "1");
  registry.push("app", images.second, "2");
  reference = `${registry.host}/app:1`;
});
afterAll(async () => {
  await registry?.[Symbol.asyncDispose]();
  await directory?.[Symbol.asyncDispose]();
});
beforeEach(async () => {
  registry.requests.length = 0;
  registry.clearFaults();
  tmp = join(directory.path, `tmp-${++tests}`);
  await mkdir(tmp);
  config = await configured("layer_cache_enable: true");
});

async function configured(...analyzer: readonly string[]): Promise<string> {
  const path = join(tmp, `config-${analyzer.length}-${/true/.test(analyzer.join())}.yaml`);
  const lines = analyzer.map((line) => `    ${line}\n`).join("");
  await writeFile(path, `tmp_dir: ${tmp}\nservices:\n  analyzer:\n${lines}`);
  return path;
}

const cacheDirectory = () => join(tmp, "anchore_layercache");

/** Where no database has been before: all layers are read anew. */
const emptyDatabase = () => ["--data-dir", join(directory.path, `data-${++databases}`)];

async function json(name: string, ...line: readonly string[]) {
  const { code, stdout, stderr } = await stowage(["--config", config, ...line, "-o", "json", "--quiet"]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return documentOf(name, stdout);
}

const analyze = (...line: readonly string[]) => json("analyze", "analyze", ...line, ...emptyDatabase());

/** What the registry was asked for. */
function requested(method: string): readonly string[] {
  const layers = new Set<string>(image.layers.map(({ descriptor }) => descriptor.digest));
  const digestOf = ({ path }: { readonly path: string }) => /\/blobs\/(sha256:[0-9a-f]+)/.exec(path)?.[1] ?? "";
  return registry
    .seen("/blobs/", method)
    .map(digestOf)
    .filter((digest) => layers.has(digest))
    .toSorted();
}

const allLayers = () => image.layers.map(({ descriptor }) => descriptor.digest).toSorted();

/** All files below a directory. */
async function filesIn(path: string): Promise<readonly string[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

/** Changes one byte of what is kept of a layer. */
async function damage(digest: string): Promise<void> {
  const hex = digest.slice("sha256:".length);
  const [path = "", ...others] = (await filesIn(cacheDirectory())).filter((name) => name.includes(hex));
  expect(others).toEqual([]);
  await using file = await open(path, "r+");
  const { size } = await file.stat();
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, size >> 1);
  await file.write(Buffer.of((byte[0] ?? 0) ^ 1), 0, 1, size >> 1);
}

describe("an image of a registry, analysed again elsewhere", () => {
  it("two processes that want the same layers at once download each of them once", async () => {
    const [one, other] = await Promise.all([analyze(reference), analyze(reference)]);
    expect(requested("GET")).toEqual(allLayers());
    expect([other.digest, other.files, other.bytesRead]).toEqual([one.digest, one.files, layerBytes()]);
  });

  it("takes its layers from the cache; the registry is asked only whether they may be read", async () => {
    const first = await analyze(reference);
    expect(first.layerCache).toEqual({ hits: 0, bytesSaved: 0 });
    expect(requested("GET")).toEqual(allLayers());

    registry.requests.length = 0;
    const second = await analyze(reference);
    expect(second.layerCache).toEqual({ hits: image.layers.length, bytesSaved: layerBytes() });
    expect(requested("GET")).toEqual([]);
    expect(requested("HEAD")).toEqual(allLayers());
    const told = ({ digest, files, packages, bytesRead, layers }: Awaited<ReturnType<typeof analyze>>) => {
      const kept = layers.map(({ durationMs: _, ...layer }: { readonly durationMs: number }) => layer);
      return { digest, files, packages, bytesRead, layers: kept };
    };
    expect(told(second)).toEqual(told(first));

    registry.requests.length = 0;
    const other = await analyze(`${registry.host}/app:2`);
    const shared = images.first.layers.slice(0, 2);
    expect(other.layerCache).toEqual({ hits: 2, bytesSaved: shared.reduce((sum, { blob }) => sum + blob.length, 0) });
    expect(registry.seen(images.second.layers[2]?.descriptor.digest ?? "", "GET")).toHaveLength(1);
  });

  it("says so to a person, and sums it up for several images", async () => {
    const run = () => stowage(["--config", config, "analyze", reference, "--quiet", ...emptyDatabase()]);
    expect((await run()).stdout).toMatch(/^from the cache +nothing$/m);
    expect((await run()).stdout).toMatch(/^from the cache +3 layers, [\d.]+ kB not downloaded$/m);
    registry.requests.length = 0;
    const all = await json("analyze-several", "analyze", reference, `${registry.host}/app:2`, ...emptyDatabase());
    expect(all).toMatchObject({ analyzed: 2, failed: 0, layerCache: { hits: 3, bytesSaved: layerBytes() } });
    expect(requested("GET")).toEqual([]);
  });

  it("fetches a damaged layer again", async () => {
    await analyze(reference);
    const [, damaged] = image.layers;
    const digest = damaged?.descriptor.digest ?? "";
    await damage(digest);
    registry.requests.length = 0;
    const report = await analyze(reference);
    expect(report.digest).toBe(image.descriptor.digest);
    expect(requested("GET")).toEqual([digest]);
    expect(report.layerCache.hits).toBe(2);
    expect(await json("cache-verify", "cache", "verify")).toMatchObject({ entries: 3, damaged: [] });
  });

  it("is not served to who may not read it", async () => {
    await analyze(reference);
    registry.fail({ method: "HEAD", path: "/blobs/", faults: [{ status: 403 }], repeat: true });
    registry.fail({ method: "GET", path: "/blobs/", faults: ["none", { status: 403 }], repeat: true });
    const { code, stdout, stderr } = await stowage([
      ...["--config", config, "analyze", reference, ...emptyDatabase(), "-o", "json", "--quiet"],
    ]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(documentOf("error", stderr).error.code).toBe("ACCESS_DENIED");
  });
});

describe("no cache", () => {
  it("where it is off: nothing is left in tmp_dir, and nothing is said of it", async () => {
    config = await configured("layer_cache_enable: false", "layer_cache_max_gigabytes: 1");
    const before = await readdir(tmp);
    const report = await analyze(reference);
    expect(report).not.toHaveProperty("layerCache");
    expect(await readdir(tmp)).toEqual(before);
    expect(requested("GET")).toEqual(allLayers());
  });

  it("where the image lies on this machine", async () => {
    const report = await analyze(`oci:${join(directory.path, "layout")}:1`);
    expect(report).not.toHaveProperty("layerCache");
    expect(await readdir(tmp)).not.toContain("anchore_layercache");
  });

  it("where its place is taken: the analysis goes on, and says so once", async () => {
    await writeFile(cacheDirectory(), "a file");
    const { code, stdout, stderr } = await stowage(["--config", config, "analyze", reference, ...emptyDatabase()]);
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/^from the cache +nothing$/m);
    expect(stderr.match(/the layer cache .* can.t be used/g)).toHaveLength(1);
    expect(await readFile(cacheDirectory(), "utf8")).toBe("a file");
    const stats = await stowage(["--config", config, "cache", "stats", "-o", "json"]);
    expect(stats).toMatchObject({ code: 1, stdout: "" });
    expect(documentOf("error", stats.stderr).error).toMatchObject({
      code: "LAYER_CACHE_UNUSABLE",
      details: { directory: cacheDirectory() },
    });
  });

  it("where the disk has no room for it and the analyses: they come first", async (context) => {
    using volume = mountSmallVolume(3_000_000);
    if (volume === undefined) return context.skip("SKIPPED: no tmpfs can be mounted here");
    const many = Array.from({ length: 24 }, (_, number) => {
      const names = Array.from({ length: 2000 }, (_each, file) => `${number}/${sha256(`${number} ${file}`).slice(7)}`);
      return buildImage({ layers: [names.map((path) => ({ path, content: sha256(path) }))] });
    });
    for (const [number, each] of many.entries()) registry.push("many", each, String(number));
    const path = join(tmp, "small.yaml");
    await writeFile(path, `tmp_dir: ${volume.path}\nservices: {analyzer: {layer_cache_enable: true}}\n`);
    const sources = many.map((_, number) => `${registry.host}/many:${number}`);
    const { code, stdout, stderr } = await stowage([
      ...["--config", path, "analyze", ...sources, ...emptyDatabase(), "-o", "json"],
    ]);
    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
    expect(documentOf("analyze-several", stdout)).toMatchObject({ analyzed: 24, failed: 0 });
    expect(stderr).toMatch(/the layer cache [^"]* can't be used|no room beside the layer cache/);
  });

  it.each(["stats", "list", "trim", "verify", "clear"])("cache %s says so, and starts no database", async (command) => {
    const data = join(directory.path, `data-of-${command}`);
    const run = (...line: readonly string[]) =>
      stowage(["--config", config, "--data-dir", data, "cache", command, ...line]);
    const { code, stdout, stderr } = await run();
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toBe(
      `there is no layer cache: ${cacheDirectory()} is not there (it is made when an image of a registry is analysed)\n`,
    );
    const document = documentOf(`cache-${command}`, (await run("-o", "json")).stdout);
    expect(document).toMatchObject({ directory: cacheDirectory(), isThere: false });
    await expect(stat(data)).rejects.toThrow("ENOENT");
    await expect(stat(cacheDirectory())).rejects.toThrow("ENOENT");
  });
});

describe("stowage cache", () => {
  it("tells what it holds", async () => {
    await analyze(reference);
    await analyze(reference);
    const stats = await json("cache-stats", "cache", "stats");
    expect(stats).toMatchObject({
      directory: cacheDirectory(),
      isThere: true,
      isEnabled: true,
      bytesMax: 1e9,
      entries: 3,
      blobBytes: layerBytes(),
      bytesReserved: 0,
      bytesForeign: 0,
      entriesInUse: 0,
    });
    expect(stats.bytesCounted).toBeGreaterThan(layerBytes());
    expect(stats.oldestUse).toMatch(/^\d{4}-/);
    const { entries } = await json("cache-list", "cache", "list");
    expect(entries).toHaveLength(3);
    for (const { digest, sizeBytes, hits } of entries) {
      const layer = image.layers.find(({ descriptor }) => descriptor.digest === digest);
      expect({ sizeBytes, hits }).toEqual({ sizeBytes: layer?.blob.length, hits: 1 });
    }
    const text = await stowage(["--config", config, "cache", "stats"]);
    expect(text.stdout).toMatch(/^turned on +yes$/m);
    expect(text.stdout).toMatch(/^limit +1\.00 GB$/m);
    expect(text.stdout).toMatch(/^layers +3, /m);
    const table = await stowage(["--config", config, "cache", "list"]);
    expect(table.stdout.split("\n")[0]).toMatch(/^DIGEST +SIZE +LAST USED +HITS +IN USE$/);
    expect(table.stdout.trim().split("\n")).toHaveLength(4);

    config = await configured("layer_cache_enable: false", "layer_cache_max_gigabytes: 2");
    expect(await json("cache-stats", "cache", "stats")).toMatchObject({ isEnabled: false, entries: 3, bytesMax: 2e9 });
    const { stdout } = await stowage(["--config", config, "cache", "stats"]);
    expect(stdout).toMatch(/^turned on +no: services[.]analyzer[.]layer_cache_enable turns it on$/m);
    // One that is nobody's who fills the cache has no say in how large it may be.
    config = await configured();
    expect(await json("cache-stats", "cache", "stats")).not.toHaveProperty("bytesMax");
    expect((await stowage(["--config", config, "cache", "stats"])).stdout).toMatch(/^limit +not said /m);
  });

  it("drops what was not used for longest, and everything", async () => {
    await analyze(reference);
    const { entries } = await json("cache-list", "cache", "list");
    const { bytesCounted } = await json("cache-stats", "cache", "stats");
    expect(await json("cache-trim", "cache", "trim")).toMatchObject({ entries: 0, bytes: 0, bytesMax: 1e9 });
    const to = String(bytesCounted - 1);
    const trimmed = await json("cache-trim", "cache", "trim", "--to", to);
    expect(trimmed).toMatchObject({ entries: 1, bytes: entries[0].sizeBytes, bytesMax: bytesCounted - 1 });
    const left = (await json("cache-list", "cache", "list")).entries;
    expect(left.map(({ digest }: { digest: string }) => digest)).toEqual(
      entries.slice(1).map(({ digest }: { digest: string }) => digest),
    );
    expect((await json("cache-stats", "cache", "stats")).bytesCounted).toBeLessThan(bytesCounted);
    const wrong = await stowage(["--config", config, "cache", "trim", "--to", "1g"]);
    expect(wrong).toMatchObject({ code: 2, stdout: "" });
    expect(wrong.stderr).toContain("not a size");

    // All of the rest goes without a question, also where the cache is turned off.
    config = await configured("layer_cache_enable: false");
    const { code, stdout } = await stowage(["--config", config, "cache", "clear"]);
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringMatching(/^dropped 2 layers, /) });
    expect((await json("cache-list", "cache", "list")).entries).toEqual([]);
    expect((await stowage(["--config", config, "cache", "clear"])).stdout).toBe("nothing was dropped\n");
  });

  it("finds damage, names and drops it, and leaves what is not its own", async () => {
    await analyze(reference);
    expect(await json("cache-verify", "cache", "verify")).toMatchObject({
      entries: 3,
      bytes: layerBytes(),
      damaged: [],
      foreign: [],
    });
    const [layer] = image.layers;
    const digest = layer?.descriptor.digest ?? "";
    await damage(digest);
    const stranger = join(cacheDirectory(), "str\u001b[2Janger");
    await writeFile(stranger, "mine");
    const run = await stowage(["--config", config, "cache", "verify", "-o", "json"]);
    expect(run.code).toBe(1);
    expect(documentOf("cache-verify", run.stdout)).toMatchObject({
      damaged: [{ digest, reason: expect.stringMatching(/./) }],
      foreign: [expect.stringContaining("anger")],
    });
    const lines = run.stderr.trim().split("\n");
    for (const line of lines.slice(0, -1)) documentOf("progress", line);
    expect(documentOf("error", lines.at(-1) ?? "").error).toMatchObject({
      code: "LAYER_CACHE_DAMAGED",
      details: { directory: cacheDirectory(), entries: 1 },
    });
    const again = await stowage(["--config", config, "cache", "verify", "--quiet"]);
    expect({ code: again.code, stderr: again.stderr }).toEqual({ code: 0, stderr: "" });
    expect(again.stdout).toMatch(/^read 2 layers, .*: all are what they should be\n/);
    expect(again.stdout).toMatch(/not the cache's: .*str\\x1b\[2Janger/);

    const [, other] = image.layers;
    await damage(other?.descriptor.digest ?? "");
    const text = await stowage(["--config", config, "cache", "verify", "--quiet"]);
    expect(text.code).toBe(1);
    expect(text.stdout).toContain(`dropped: ${other?.descriptor.digest}: `);
    await json("cache-clear", "cache", "clear");
    expect(await readFile(stranger, "utf8")).toBe("mine");
  });

  it("works beside an analysis, and sees what it downloads", async () => {
    const [large] = image.layers.toSorted((one, other) => other.blob.length - one.blob.length);
    const digest = large?.descriptor.digest ?? "";
    const asked = firstRequest("GET", digest);
    registry.fail({ method: "GET", path: digest, faults: [{ stallAfterBytes: 100 }] });
    const child = startStowage(["--config", config, "analyze", reference, "--quiet", ...emptyDatabase()]);
    const end = ended(child);
    await Promise.race([asked, end]);
    expect(child.exitCode).toBeNull();
    for (const command of ["verify", "list", "trim", "clear", "stats"])
      await json(`cache-${command}`, "cache", command);
    child.kill("SIGINT");
    expect((await end).code).toBe(130);
    registry.clearFaults();
    expect((await json("cache-stats", "cache", "stats")).bytesReserved).toBe(0);
    await analyze(reference);
    expect(await json("cache-verify", "cache", "verify")).toMatchObject({ entries: 3, damaged: [] });
  });
});

describe("tmp_dir", () => {
  /** Nothing can be made below a file. */
  const elsewhere = () => join(directory.path, "layout", "index.json");

  it("is where all temporary bytes go", async () => {
    const archive = join(directory.path, "archive.tar.gz");
    await writeFile(archive, gzipSync(ociArchive([{ image: images.first, ref: "1" }])));
    const data = emptyDatabase();
    const run = (...line: readonly string[]) =>
      stowage(["--config", config, ...line, ...data, "--quiet"], { env: { TMPDIR: elsewhere() } });
    const lines = [
      ["analyze", `oci-archive:${archive}:1`, "--name", "example.com/x:1"],
      ["analyze", `${registry.host}/app:2`],
      ["image", "content", "example.com/x:1", "files"],
      ["objectstorage", "scrub"],
      ["objectstorage", "check", config],
      ["cache", "verify"],
      ["image", "delete", "example.com/x:1", "--yes"],
      ["objectstorage", "gc", "--compact"],
    ];
    for (const line of lines) {
      const { code, stderr } = await run(...line);
      expect({ line, code, stderr: code === 0 ? "" : stderr }).toEqual({ line, code: 0, stderr: "" });
    }
  });

  it.each(["oci", "oci-archive"])("that can't be used is told of: %s", async (kind) => {
    const archive = join(directory.path, "archive.tar.gz");
    await writeFile(archive, gzipSync(ociArchive([{ image: images.first, ref: "1" }])));
    const source = kind === "oci" ? `oci:${join(directory.path, "layout")}:1` : `oci-archive:${archive}:1`;
    const path = join(tmp, "wrong.yaml");
    await writeFile(path, `tmp_dir: ${elsewhere()}\n`);
    const { code, stdout, stderr } = await stowage([
      ...["--config", path, "analyze", source, ...emptyDatabase(), "-o", "json", "--quiet"],
    ]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(documentOf("error", stderr).error).toMatchObject({
      code: "CONFIG_TEMPORARY_UNUSABLE",
      details: { directory: elsewhere() },
    });
  });
});
