import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FakeStream } from "../../test/cli/streams.ts";
import type { Application, CollectionReport, GarbagePreview, ObjectStorage, ScrubSummary } from "../app/index.ts";
import { readEnvironment } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import { type CheckStep, type PhysicalKey, parsePhysicalKey, type UsageReport } from "../objects/index.ts";
import { documents } from "./documents.ts";
import { runCommandLine } from "./run.ts";

// What a store's owner, an image or a server chose must not reach the terminal as it is.
const place = "localfs archive_data_dir=/evil\u001b[2J";
const unreachable = new StowageError("BACKEND_UNREACHABLE", { driver: "s3" }, { hint: "look at the network" });

const usage: UsageReport = {
  groups: [
    {
      backendId: 1,
      bucket: "layer_data",
      account: "a\u009b",
      codec: "zstd",
      state: "live",
      age: "day",
      objects: 2,
      contentBytes: 4000,
      storedBytes: 1000,
    },
    {
      backendId: 1,
      bucket: "layer_data",
      account: "b",
      codec: "none",
      state: "live",
      age: "older",
      objects: 1,
      contentBytes: 50,
      storedBytes: 90,
    },
  ],
  backends: [
    {
      id: 1,
      place,
      isConfigured: true,
      held: {
        blobs: 4,
        bytes: 1100,
        explainedBlobs: 3,
        explainedBytes: 1090,
        foreignBlobs: 1,
        foreignBytes: 10,
        missingBlobs: 1,
        missingBytes: 9,
      },
    },
    { id: 2, place: "s3 bucket=b", isConfigured: true, error: unreachable },
    { id: 3, place: "s3 bucket=gone", isConfigured: false },
  ],
  database: {
    bytes: 9_000_000,
    blobBytes: 100,
    tables: [{ name: "object_chunks", rows: 1, deadRows: 2, tableBytes: 8192, indexBytes: 16_384, longValueBytes: 0 }],
  },
};

const garbage: GarbagePreview = {
  unusedLayers: { due: { documents: 1, bytes: 10 }, later: { documents: 2, bytes: 20, dueInSeconds: 125 } },
  stored: [
    { place, state: "retired", isDue: true, dueInSeconds: 0, locations: 3, bytes: 30 },
    { place, state: "pending", isDue: false, dueInSeconds: 60, locations: 4, bytes: 0 },
  ],
};

const collection: CollectionReport = {
  layersRetired: 1,
  reclaimed: [
    { place, blobs: 3, bytes: 30_000, unmeasured: 0 },
    { place: "localfs a", blobs: 9, bytes: 2_000, unmeasured: 1 },
    { place: "localfs b", blobs: 9, bytes: 0, unmeasured: 9 },
  ],
  failures: [],
  left: {
    unusedLayers: { due: { documents: 0, bytes: 0 }, later: { documents: 0, bytes: 0, dueInSeconds: 0 } },
    stored: [],
  },
};

const scrub: ScrubSummary = {
  id: 1,
  startedAt: new Date(0),
  isResumed: false,
  objects: 7,
  bytes: 700,
  repaired: 0,
  givenUp: 0,
  forgotten: 0,
  notNeeded: 0,
  damaged: 0,
  unreadable: 0,
  counts: {},
  findings: [],
  failures: [],
  damagedImages: 0,
  images: [],
};

interface World {
  readonly storage?: Partial<ObjectStorage>;
  readonly steps?: readonly CheckStep[];
  readonly terminal?: { readonly columns: number; readonly rows: number };
  readonly stdin?: string;
}

async function run(line: string, world: World = {}) {
  const asked: unknown[] = [];
  const storage: ObjectStorage = {
    usage: async (look) => {
      asked.push({ look });
      return usage;
    },
    previewGarbage: async () => garbage,
    collectGarbage: async ({ compact }) => {
      asked.push({ compact });
      return collection;
    },
    scrub: async ({ progress: _1, begin, ...choice }) => {
      asked.push(choice);
      begin({ share: choice.share, objectsLeft: 7, bytesLeft: 700, resumed: undefined }).end("done");
      return scrub;
    },
    claim: async () => {
      asked.push("claim");
      return [place];
    },
    ...world.storage,
  };
  const stdout = new FakeStream(world.terminal);
  const stderr = new FakeStream(world.terminal);
  const stdin = Object.assign(new PassThrough(), { isTTY: world.terminal !== undefined });
  if (world.stdin !== undefined) stdin.end(world.stdin);
  const code = await runCommandLine(
    line.split(" "),
    "1.2.3",
    {
      stdin,
      stdout,
      stderr,
      environment: readEnvironment({ HOME: "/home/x" }),
      openApplication: async () =>
        ({ objectStorage: storage, [Symbol.asyncDispose]: async () => {} }) as unknown as Application,
      openMigrator: async () => {
        throw new TypeError("no command here migrates");
      },
      openMigrationJournal: async () => {
        throw new TypeError("no command here migrates");
      },
      openStoreCheck: async () => ({
        backends: [
          {
            stores: ["object_store", "analysis_archive"],
            place,
            async *run() {
              yield* world.steps ?? [];
            },
          },
        ],
        [Symbol.asyncDispose]: async () => {},
      }),
    },
    new AbortController().signal,
  );
  for (const stream of [stdout, stderr]) await new Promise((resolve) => stream.write("", resolve));
  return { code, stdout: stdout.text, stderr: stderr.text, asked };
}

const step = (name: string, outcome: CheckStep["outcome"], more: Partial<CheckStep> = {}): CheckStep => ({
  name,
  outcome,
  durationMs: 12,
  detail: undefined,
  error: undefined,
  ...more,
});

// biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
const unprintable = /[\x00-\x09\x0b-\x1f\x7f-\x9f]/;

describe("usage", () => {
  it("prints what is documented", async () => {
    const { stdout, asked } = await run("objectstorage usage -o json -q");
    expect(asked).toEqual([{ look: true }]);
    const document = documents["objectstorage-usage"].parse(JSON.parse(stdout));
    expect(document.groups[0]?.place).toBe(place);
    expect(document.backends[1]?.error?.code).toBe("BACKEND_UNREACHABLE");
  });

  it("sums up by each dimension, and says what is missing or not to be reached", async () => {
    const { stdout } = await run("objectstorage usage -q");
    expect(stdout).not.toMatch(unprintable);
    expect(stdout).toMatch(
      /^localfs archive_data_dir=\/evil\\x1b\[2J +3 +1.09 kB +1.10 kB +99 % +1 +10 B under 1 name that no document has$/m,
    );
    expect(stdout).toMatch(/^s3 bucket=b +0 +0 B +- +- +- +could not be listed: the storage backend can't be reached/m);
    expect(stdout).toMatch(/^s3 bucket=gone .* not in the configuration$/m);
    expect(stdout).toMatch(/^layer_data +localfs .* zstd +live +2 +4.00 kB +1.00 kB$/m);
    expect(stdout).toMatch(/^a\\u\{009b\} +2 +4.00 kB +1.00 kB$/m);
    expect(stdout).toMatch(/^older +1 +50 B +90 B$/m);
    expect(stdout).toMatch(/^free or overhead +24.5 kB of the tables/m);
    expect(stdout).toMatch(/^log +not known/m);
    expect(stdout).toMatch(/^object_chunks +1 +2 +8.19 kB +16.4 kB +0 B +24.6 kB$/m);
  });

  it("ends with 1 where a store could not be listed, after all that it knows", async () => {
    const { code, stdout, stderr } = await run("objectstorage usage -q -o json");
    expect(code).toBe(1);
    documents["objectstorage-usage"].parse(JSON.parse(stdout));
    expect(documents.error.parse(JSON.parse(stderr)).error).toMatchObject({
      code: "BACKEND_LEFT_OUT",
      details: { places: ["s3 bucket=b"] },
      hint: "look at the network",
    });
    const text = await run("objectstorage usage -q");
    expect(text.code).toBe(1);
    expect(text.stdout).toMatch(/^object_chunks /m);
    const backends = usage.backends.filter(({ error }) => error === undefined);
    const storage = { usage: async () => ({ ...usage, backends }) };
    expect((await run("objectstorage usage -q", { storage })).code).toBe(0);
  });

  it("fits into a narrow terminal", async () => {
    const { stdout } = await run("objectstorage usage -q --no-color", { terminal: { columns: 60, rows: 24 } });
    for (const line of stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(60);
  });
});

describe("gc", () => {
  it("previews as documented, soonest first", async () => {
    const { stdout } = await run("objectstorage gc --dry-run -o json");
    documents["objectstorage-gc-preview"].parse(JSON.parse(stdout));
    const text = (await run("objectstorage gc --dry-run")).stdout;
    expect(text.split("\n").map((line) => line.slice(0, 13).trim())).toEqual([
      ...["WHEN", "now", "now", "in 1 min 00 s", "in 2 min 05 s", "", "40 B now, 20", ""],
    ]);
    expect(text).toMatch(/being written: the lease of its writer/);
    expect(text).not.toMatch(unprintable);
  });

  it("tells what it did", async () => {
    const { code, stdout, asked } = await run("objectstorage gc -q");
    expect({ code, asked }).toEqual({ code: 0, asked: [{ compact: false }] });
    expect(stdout).toMatch(/^1 layer document retired that no image stands on\n/);
    expect(stdout).toMatch(/\\x1b\[2J +3 +30.0 kB$/m);
    expect(stdout).toMatch(/^localfs a +9 +at least 2.00 kB$/m);
    expect(stdout).toMatch(/^localfs b +9 +not known$/m);
    const { stdout: json } = await run("objectstorage gc -q -o json");
    documents["objectstorage-gc"].parse(JSON.parse(json));
  });

  it("says that tables are locked, and how much smaller they are", async () => {
    const compaction = {
      tables: [{ name: "objects", bytesBefore: 9000, bytesAfter: 1000 }],
      bytesBefore: 9000,
      bytesAfter: 1000,
    };
    const storage = { collectGarbage: async () => ({ ...collection, compaction }) };
    const { stdout, stderr } = await run("objectstorage gc --compact", { storage });
    expect(stderr).toContain("locked");
    expect(stdout).toMatch(/^objects +9.00 kB +1.00 kB\nall +9.00 kB +1.00 kB\n$/m);
    const { stdout: json } = await run("objectstorage gc --compact -o json -q", { storage });
    documents["objectstorage-gc"].parse(JSON.parse(json));
  });

  it("ends with 1 when a backend failed, whatever the reason", async () => {
    const storage = { collectGarbage: async () => ({ ...collection, failures: [{ place, error: unreachable }] }) };
    const { code, stdout, stderr } = await run("objectstorage gc -q -o json", { storage });
    expect(code).toBe(1);
    expect(documents["objectstorage-gc"].parse(JSON.parse(stdout)).failures).toHaveLength(1);
    expect(documents.error.parse(JSON.parse(stderr)).error).toMatchObject({
      code: "BACKEND_LEFT_OUT",
      details: { places: [place] },
      hint: "look at the network",
    });
    const text = await run("objectstorage gc -q", { storage });
    expect(text.stdout).toMatch(/^failed: localfs .*can't be reached/m);
    expect(text.stdout + text.stderr).not.toMatch(unprintable);
  });
});

describe("scrub", () => {
  it("passes on what was asked for", async () => {
    const { code, asked } = await run("objectstorage scrub --sample 2.5% --max-rate 20m --repair --restart -q");
    expect(code).toBe(0);
    expect(asked).toEqual([{ share: 0.025, bytesPerSecondMax: 20 * 1024 ** 2, repair: true, restart: true }]);
    expect((await run("objectstorage scrub -q")).asked).toEqual([{ share: 1, repair: false, restart: false }]);
  });

  const key = parsePhysicalKey("0".repeat(31).concat("a")) as PhysicalKey;
  const damaged: ScrubSummary = {
    ...scrub,
    damaged: 1,
    counts: { damaged: 1, extra: 2000 },
    findings: [{ place, physicalKey: key, kind: "damaged", detail: "a/b/\u001b[2J: wrong", bytes: 9 }],
  };

  it("reports as documented, and ends with 1 while anything is damaged", async () => {
    const storage = { scrub: async () => damaged };
    const { code, stdout, stderr } = await run("objectstorage scrub -q -o json", { storage });
    expect(code).toBe(1);
    documents["objectstorage-scrub"].parse(JSON.parse(stdout));
    expect(documents.error.parse(JSON.parse(stderr)).error.hint).toBe("run: stowage objectstorage scrub --repair");
    const text = await run("objectstorage scrub -q", { storage });
    expect(text.stdout).toMatch(/^found +damaged 1, extra 2,000$/m);
    expect(text.stdout).toMatch(/^and 2,000 more$/m);
    expect(text.stdout).not.toMatch(unprintable);
  });

  it("says what became of all that was found, so that it adds up", async () => {
    const report = {
      ...scrub,
      counts: { damaged: 9, unreadable: 3, missing: 2, extra: 5 },
      ...{ repaired: 2, givenUp: 6, forgotten: 2, notNeeded: 1, damaged: 5, unreadable: 3 },
    };
    const { stdout } = await run("objectstorage scrub --repair -q", { storage: { scrub: async () => report } });
    expect(
      stdout
        .split("\n")
        .slice(2, -1)
        .map((line) => line.replace(/ {2,}/, ": ")),
    ).toEqual([
      "found: damaged 9, unreadable 3, missing 2, extra 5",
      "mended from a copy: 2",
      "layers forgotten: 2, to be read anew from the images",
      "not needed: 1, replaced or deleted since",
      "settled otherwise: 1, before or beside this run",
      "damaged still: 8: 4 lost, until their images are analysed again, 1 damaged, 3 not readable",
    ]);
  });

  it("ends with 1 while something could not be read, though nothing is known to be damaged", async () => {
    const storage = { scrub: async () => ({ ...scrub, counts: { unreadable: 2 }, unreadable: 2 }) };
    const { code, stdout, stderr } = await run("objectstorage scrub -q", { storage });
    expect(code).toBe(1);
    expect(stdout).toMatch(/^damaged still +2: 2 not readable$/m);
    expect(stderr).toContain("OBJECT_DAMAGED");
  });

  it("shortens digests, reasons and names for people, and nothing for programs", async () => {
    const digest = "0123456789abcdef".repeat(4);
    const detail = `default/layer_data/${digest}: sha256:${digest} stored, ${"and so on, ".repeat(30)}`;
    const findings = [{ place, physicalKey: "x".repeat(300), kind: "damaged", detail, bytes: 9 }] as const;
    const storage = { scrub: async () => ({ ...damaged, findings }) };
    const { stdout } = await run("objectstorage scrub -q", { storage });
    expect(stdout).toContain("default/layer_data/0123456789ab…: sha256:0123456789ab… stored, and so on");
    for (const line of stdout.split("\n")) expect(line.length).toBeLessThan(300);
    expect((await run("objectstorage scrub -q -o json", { storage })).stdout).toContain(JSON.stringify(detail));
  });

  it("ends with 1 while an image has to be analysed again, and names it", async () => {
    const images = [{ digest: "sha256:1", fullTags: ["x/y:1"], damage: "analyse it again" }];
    const storage = { scrub: async () => ({ ...scrub, damagedImages: 1, images }) };
    const { code, stdout, stderr } = await run("objectstorage scrub --repair -q", { storage });
    expect(code).toBe(1);
    expect(stdout).toMatch(/^sha256:1 +x\/y:1 +analyse it again$/m);
    expect(stderr).toContain("stowage analyze x/y:1");
  });

  it("ends with 1 when a backend could not be looked at", async () => {
    const storage = { scrub: async () => ({ ...scrub, failures: [{ place, error: unreachable }] }) };
    const { code, stderr } = await run("objectstorage scrub -q", { storage });
    expect(code).toBe(1);
    expect(stderr).toContain("BACKEND_LEFT_OUT");
  });

  it("says that it goes on with an interrupted one, and which", async () => {
    const storage: Partial<ObjectStorage> = {
      scrub: async ({ begin }) => {
        begin({
          share: 0.1,
          objectsLeft: 3,
          bytesLeft: 30,
          resumed: { startedAt: new Date(0), objects: 4, bytes: 9 },
        }).end("");
        return { ...scrub, isResumed: true };
      },
    };
    const { stdout, stderr } = await run("objectstorage scrub", { storage });
    expect(stderr).toContain(
      "going on with the interrupted scrub of 1970-01-01 00:00:00Z, which has read 4 objects of a sample of 10 %; --restart begins anew\n",
    );
    expect(stdout).toMatch(/^begun .*, went on after an interruption$/m);
  });
});

describe("check", () => {
  let directory: string;
  let file: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "stowage-cli-"));
    file = join(directory, "config.yaml");
    await writeFile(file, "services: {}\n");
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));
  const denied = new StowageError(
    "BACKEND_DENIED",
    { driver: "s3", operation: "put", permission: "s3:PutObject" },
    { hint: "allow it" },
  );
  const steps = [
    step("connect", "ok", { detail: "\u001b[2J" }),
    step("write", "failed", { error: denied }),
    step("read back", "skipped"),
  ];

  it("prints a line for each step, and ends as the one that failed", async () => {
    const { code, stdout, stderr } = await run(`objectstorage check ${file}`, { steps });
    expect(code).toBe(1);
    expect(stdout).toBe(
      `object_store and analysis_archive (the same place, checked once): localfs archive_data_dir=/evil\\x1b[2J
  ok       connect                    12 ms  \\x1b[2J
  FAILED   write                      12 ms  the storage backend refused access (driver: s3; operation: put; permission: s3:PutObject)
  skipped  read back
`,
    );
    expect(stderr).toContain("hint: allow it");
  });

  it("prints what is documented", async () => {
    const { stdout } = await run(`objectstorage check ${file} -o json`, { steps });
    expect(documents["objectstorage-check"].parse(JSON.parse(stdout)).isUsable).toBe(false);
  });
});

describe("claim", () => {
  const terminal = { columns: 100, rows: 24 };

  it("explains, asks, and does it after a yes only", async () => {
    const yes = await run("objectstorage claim --no-color", { terminal, stdin: "y\n" });
    expect(yes).toMatchObject({
      code: 0,
      asked: ["claim"],
      stdout: "claimed localfs archive_data_dir=/evil\\x1b[2J\n",
    });
    expect(yes.stderr).toMatch(/takes over all stores[\s\S]*Claim the stores\? \[y\/N\] $/);
    const no = await run("objectstorage claim", { terminal, stdin: "\n" });
    expect(no).toMatchObject({ code: 1, asked: [] });
  });

  it("is not done by a script that does not say yes", async () => {
    expect(await run("objectstorage claim")).toMatchObject({ code: 1, asked: [], stdout: "" });
    const { stdout } = await run("objectstorage claim --yes -o json");
    documents["objectstorage-claim"].parse(JSON.parse(stdout));
  });
});
