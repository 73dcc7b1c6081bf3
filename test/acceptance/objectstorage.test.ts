import { existsSync } from "node:fs";
import { open, readdir, writeFile } from "node:fs/promises";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { documentOf, ended, startStowage, stowage, temporaryDirectory } from "./command.ts";
import { writeImages } from "./images.ts";

let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
let store: string;

const path = (...names: readonly string[]) => join(directory.path, ...names);

beforeAll(async () => {
  directory = await temporaryDirectory();
  writeImages(path("layout"));
  store = path("store");
  const files = `{name: localfs, config: {archive_data_dir: ${store}}}`;
  await configure("files.yaml", `object_store: {storage_driver: ${files}}`);
  await configure(
    "both.yaml",
    `object_store: {storage_driver: ${files}}`,
    "analysis_archive: {storage_driver: {name: db}}",
  );
  await configure("database.yaml", "object_store: {storage_driver: {name: db}}");
  await configure(
    "moved.yaml",
    "object_store: {storage_driver: {name: db}}",
    `other_object_stores: [{storage_driver: ${files}}]`,
  );
  await configure(
    "file.yaml",
    `object_store: {storage_driver: {name: localfs, config: {archive_data_dir: ${path("files.yaml")}}}}`,
  );
  await configure("wrong.yaml", "object_store: {storage_driver: {name: localfs, config: {archive_dir: /x}}}");
});
afterAll(() => directory?.[Symbol.asyncDispose]());

async function configure(name: string, ...sections: readonly string[]): Promise<void> {
  await writeFile(path(name), `services:\n  catalog:\n${sections.map((line) => `    ${line}\n`).join("")}`);
}

/** Runs a command on the data of this test, with the stores of a configuration file. */
const run = (file: string, ...line: readonly string[]) =>
  stowage([...line, "--data-dir", path("data"), "--config", path(file)]);

/** Runs a command; its exit code and its document. */
async function json(name: string, file: string, ...line: readonly string[]) {
  const { code, stdout, stderr } = await run(file, ...line, "-o", "json", "-q");
  return { code, stderr, document: documentOf(name, stdout) };
}

const analyze = (file: string, which: "1" | "2") =>
  run(file, "analyze", `oci:${path("layout")}:${which}`, "--name", `example.com/app:${which}`, "-q");

/** The largest document: that of the layer with many files. */
async function largestFile(): Promise<string> {
  const entries = await readdir(store, { recursive: true, withFileTypes: true });
  const sized = await Promise.all(
    entries
      .filter((entry) => entry.isFile())
      .map(async (entry) => {
        const name = join(entry.parentPath, entry.name);
        await using file = await open(name);
        return { name, size: (await file.stat()).size };
      }),
  );
  return sized.toSorted((one, other) => other.size - one.size)[0]?.name ?? "";
}

async function damage(name: string): Promise<void> {
  await using file = await open(name, "r+");
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, 2000);
  await file.write(Buffer.from([(buffer[0] as number) ^ 1]), 0, 1, 2000);
}

describe("list-drivers", () => {
  it("needs no database", async () => {
    const { code, document } = await json("objectstorage-list-drivers", "both.yaml", "objectstorage", "list-drivers");
    expect(code).toBe(0);
    expect(document.drivers.map(({ name }: { name: string }) => name)).toEqual(["db", "localfs", "s3", "swift"]);
    expect(document.drivers[0].aliases).toEqual(["db2"]);
    expect((await run("both.yaml", "objectstorage", "list-drivers")).stdout).toMatch(/^db +db2 +\S/m);
    expect(existsSync(path("data"))).toBe(false);
  });
});

describe("check", () => {
  const check = (file: string, ...more: readonly string[]) =>
    stowage(["objectstorage", "check", path(file), "--data-dir", path("data"), ...more]);

  it("tries both stores, and leaves nothing", async () => {
    const { code, stdout, stderr } = await check("both.yaml");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/^object_store: localfs /);
    expect(stdout).toMatch(/^analysis_archive: db$/m);
    expect(stdout).toMatch(/^ {2}ok {7}write +\d+ (ms|s) +1000 bytes$/m);
    expect(stdout).not.toContain("FAILED");
    expect((await readdir(store, { recursive: true })).filter((name) => name.endsWith(".blob"))).toEqual([]);
  });

  it("tries a place once where both stores are the same", async () => {
    const { code, stdout } = await check("files.yaml", "-o", "json");
    expect(code).toBe(0);
    const { isUsable, backends } = documentOf("objectstorage-check", stdout);
    expect(isUsable).toBe(true);
    expect(backends).toHaveLength(1);
    expect(backends[0].stores).toEqual(["object_store", "analysis_archive"]);
  });

  it("names the step that fails and the right that is missing, and skips the rest", async () => {
    await using server = await listen((_request, response) => {
      const body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
      response.writeHead(403, { "content-type": "application/xml" }).end(body);
    });
    await configureS3(server.port);
    const { code, stdout, stderr } = await check("s3.yaml", "-o", "json");
    expect(code).toBe(1);
    const { isUsable, backends } = documentOf("objectstorage-check", stdout);
    expect(isUsable).toBe(false);
    const outcomes = backends[0].steps.map(({ outcome }: { outcome: string }) => outcome);
    expect(outcomes.filter((outcome: string) => outcome === "failed")).toHaveLength(1);
    expect(outcomes.at(-1)).toBe("skipped");
    expect(documentOf("error", stderr).error).toMatchObject({
      code: "BACKEND_DENIED",
      details: { permission: expect.stringMatching(/^s3:/) },
    });
    const text = await check("s3.yaml");
    expect(text.stdout).toMatch(/^ {2}FAILED .* permission: s3:/m);
    expect(text.stdout + text.stderr).not.toContain("not-to-be-seen");
  });

  it("ends with 2 for the configuration, 3 for a server that is not there", async () => {
    const wrong = await check("wrong.yaml");
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain("wrong.yaml");
    expect((await check("file.yaml")).code).toBe(2);
    let port: number;
    {
      await using gone = await listen(() => {});
      port = gone.port;
    }
    await configureS3(port);
    const { code, stdout } = await check("s3.yaml");
    expect(code).toBe(3);
    expect(stdout).toMatch(/^ {2}FAILED {3}connect /m);
  });

  it("tells whose the place is", async () => {
    expect((await check("files.yaml")).stdout).toMatch(/find out whose it is .*nobody's yet/);
    expect((await analyze("files.yaml", "1")).code).toBe(0);
    expect((await check("files.yaml")).stdout).toMatch(/find out whose it is .*this installation's/);
    const { code, stdout, stderr } = await stowage([
      ...["objectstorage", "check", path("files.yaml"), "--data-dir", path("other")],
    ]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/^ {2}FAILED {3}find out whose it is/m);
    expect(stderr).toContain("BACKEND_FOREIGN");
  });

  it("refuses two files", async () => {
    expect((await check("files.yaml", "--config", path("both.yaml"))).code).toBe(2);
  });
});

describe("usage", () => {
  it("explains what the store holds", async () => {
    const { code, document } = await json("objectstorage-usage", "files.yaml", "objectstorage", "usage");
    expect(code).toBe(0);
    const { groups, backends, database } = document;
    const { held } = backends.find(({ place }: { place: string }) => place.startsWith("localfs"));
    expect(held.explainedBytes).toBe(held.bytes);
    expect(held.missingBlobs).toBe(0);
    const stored = groups.reduce((sum: number, { storedBytes }: { storedBytes: number }) => sum + storedBytes, 0);
    expect(stored).toBe(held.bytes);
    expect(database.tables.map(({ name }: { name: string }) => name)).toContain("object_chunks");
  });

  it("as tables, also without looking", async () => {
    const { code, stdout } = await run("files.yaml", "objectstorage", "usage", "--no-list", "-q");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^BACKEND +OBJECTS +STORED +HELD/m);
    expect(stdout).toMatch(/^localfs archive_data_dir=\S+ +\d+ +[\d.]+ kB +- +- +- +-$/m);
    expect(stdout).toMatch(/^layer_data +localfs .* live +\d+ /m);
    expect(stdout).toMatch(/^anchore-system +\d+ /m);
    expect(stdout).toMatch(/^at most a day +\d+ /m);
    expect(stdout).toMatch(/^object_chunks +\d+ /m);
  });
});

// The order matters: each test goes on where the one before it ended.
describe("scrub", () => {
  it("finds nothing wrong", async () => {
    const { code, document } = await json("objectstorage-scrub", "files.yaml", "objectstorage", "scrub");
    expect(code).toBe(0);
    expect(document).toMatchObject({ isResumed: false, damaged: 0, damagedImages: 0, counts: {}, failures: [] });
    expect(document.objects).toBeGreaterThan(3);
  });

  it("ends at once when interrupted, and goes on the next time", async () => {
    const child = startStowage([
      ...["objectstorage", "scrub", "--max-rate", "1k"],
      ...["--data-dir", path("data"), "--config", path("files.yaml")],
    ]);
    const result = ended(child);
    child.stderr?.on("data", (text: string) => text.includes("scrubbing") && child.kill("SIGINT"));
    const { code, stderr } = await result;
    expect(code).toBe(130);
    expect(stderr).toContain("the next scrub goes on from here");
    const next = await run("files.yaml", "objectstorage", "scrub");
    expect(next.code).toBe(0);
    expect(next.stderr).toContain("going on with the interrupted scrub");
    expect(next.stdout).toMatch(/^begun .*went on after an interruption$/m);
  });

  it("finds a damaged layer, marks the images that stand on it, and analysing one again heals all", async () => {
    expect((await analyze("files.yaml", "2")).code).toBe(0);
    await damage(await largestFile());
    const found = await json("objectstorage-scrub", "files.yaml", "objectstorage", "scrub");
    expect(found).toMatchObject({ code: 1, document: { damaged: 1, counts: { damaged: 1 }, damagedImages: 0 } });
    expect(found.document.findings[0].detail).toContain("/layer_data/");
    expect(documentOf("error", found.stderr).error).toMatchObject({
      code: "OBJECT_DAMAGED",
      hint: expect.stringContaining("--repair"),
    });

    const repaired = await run("files.yaml", "objectstorage", "scrub", "--repair", "-q");
    expect(repaired.code).toBe(1);
    expect(repaired.stdout).toMatch(/^layers forgotten +1, to be read anew/m);
    expect(repaired.stderr).toContain("hint: analyse the image again: stowage analyze example.com/app:");
    const listed = await json("image-list", "files.yaml", "image", "list");
    for (const image of listed.document.images) expect(image.damage).toMatch(/analyse it again$/);
    expect((await run("files.yaml", "image", "list")).stdout.match(/ damaged /g)).toHaveLength(2);
    const content = await run("files.yaml", "image", "content", "example.com/app:1", "files");
    expect(content.code).toBe(1);
    expect(content.stderr).toMatch(/hint: .*stowage analyze example.com\/app:1/);

    const { document } = await json(
      ...(["analyze", "files.yaml", "analyze", `oci:${path("layout")}:1`, "--name", "example.com/app:1"] as const),
    );
    expect(document.wasKnown).toBe(false);
    expect(document.layers.map(({ outcome }: { outcome: string }) => outcome)).toContain("analyzed");
    const healed = await json("image-list", "files.yaml", "image", "list");
    for (const image of healed.document.images) expect(image).not.toHaveProperty("damage");
    const last = await json("objectstorage-scrub", "files.yaml", "objectstorage", "scrub");
    expect(last).toMatchObject({ code: 0, document: { damaged: 0, damagedImages: 0 } });
    expect((await run("files.yaml", "image", "content", "example.com/app:2", "files")).code).toBe(0);
  });

  it.each([
    ["--sample", "0"],
    ["--sample", "101"],
    ["--sample", "some"],
    ["--max-rate", "0"],
    ["--max-rate", "fast"],
  ])("%s %s is a usage error", async (option, value) => {
    expect((await run("files.yaml", "objectstorage", "scrub", option, value)).code).toBe(2);
  });
});

describe("gc", () => {
  it("shows what waits, and why, and changes nothing", async () => {
    expect((await run("files.yaml", "image", "delete", "example.com/app:2")).code).toBe(0);
    const { code, document } = await json("objectstorage-gc-preview", "files.yaml", "objectstorage", "gc", "--dry-run");
    expect(code).toBe(0);
    expect(document.unusedLayers.later.documents).toBe(1);
    const retired = document.stored.find(({ state }: { state: string }) => state === "retired");
    expect(retired).toMatchObject({ isDue: false });
    expect(retired.dueInSeconds).toBeGreaterThan(0);
    const { stdout } = await run("files.yaml", "objectstorage", "gc", "--dry-run");
    expect(stdout).toMatch(/^in \d+ min .* replaced or deleted: may still be read/m);
    expect(stdout).toMatch(/nothing was changed$/m);
  });

  it("leaves what may still be read, and makes the database's files smaller", async () => {
    const { code, document } = await json("objectstorage-gc", "files.yaml", "objectstorage", "gc", "--compact");
    expect(code).toBe(0);
    expect(document.failures).toEqual([]);
    expect(document.left.stored[0].state).toBe("retired");
    expect(document.compaction.bytesAfter).toBeLessThanOrEqual(document.compaction.bytesBefore);
    expect((await json("objectstorage-scrub", "files.yaml", "objectstorage", "scrub")).code).toBe(0);
  });
});

describe("another configuration", () => {
  it("is warned of what lies elsewhere, once, by commands that write", async () => {
    const { code, stderr } = await run("moved.yaml", "objectstorage", "usage", "-q");
    expect(code).toBe(0);
    expect(stderr.match(/lie where new ones do not go/g)).toHaveLength(1);
    expect(stderr).toContain("stowage objectstorage migrate");
    expect((await run("moved.yaml", "image", "list")).stderr).toBe("");
  });

  it("that does not name the place is told which key does", async () => {
    const { stderr } = await run("database.yaml", "objectstorage", "usage", "-q");
    expect(stderr).toContain("services.catalog.other_object_stores");
    const { code, document } = await json("objectstorage-scrub", "database.yaml", "objectstorage", "scrub");
    expect(code).toBe(1);
    expect(document.failures).toMatchObject([{ error: { code: "BACKEND_UNKNOWN" } }]);
  });
});

describe("claim", () => {
  it("is not done without a yes", async () => {
    const { code, stdout, stderr } = await run("files.yaml", "objectstorage", "claim");
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toContain("--yes");
  });

  it("writes the next marker, with which everything goes on", async () => {
    const { code, document } = await json("objectstorage-claim", "files.yaml", "objectstorage", "claim", "--yes");
    expect(code).toBe(0);
    expect(document.claimed).toEqual([`localfs archive_data_dir=${store}`]);
    expect((await analyze("files.yaml", "2")).code).toBe(0);
  });

  it("of another installation's place is refused", async () => {
    const { code, stderr } = await stowage([
      ...["objectstorage", "claim", "--yes", "--data-dir", path("other"), "--config", path("files.yaml")],
    ]);
    expect(code).toBe(1);
    expect(stderr).toContain("BACKEND_FOREIGN");
  });
});

async function configureS3(port: number): Promise<void> {
  const config = `{url: "http://127.0.0.1:${port}", bucket: bucket, access_key: k, secret_key: not-to-be-seen}`;
  await configure("s3.yaml", `object_store: {storage_driver: {name: s3, config: ${config}}}`);
}

async function listen(answer: RequestListener): Promise<AsyncDisposable & { readonly port: number }> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
