import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FakeStream } from "../../test/cli/streams.ts";
import type { MigrationWork, Migrator, RecordedMigration } from "../app/index.ts";
import { readEnvironment } from "../config/index.ts";
import { StowageError } from "../errors/index.ts";
import type { FailedMove } from "../migration/index.ts";
import type { CheckStep } from "../objects/index.ts";
import type { Call } from "../runtime/index.ts";
import { documents } from "./documents.ts";
import { runCommandLine } from "./run.ts";

// What a store's owner, an image or a server chose must not reach the terminal as it is.
const place = "localfs archive_data_dir=/evil\u001b[2J";
// biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
const unprintable = /[\u001b\u009b]/;
const none = { objects: 0, bytes: 0 };

const complete = {
  id: 3,
  state: "complete",
  source: { driver: "db", place: "db" },
  destination: { driver: "localfs", place },
  options: {
    selection: {},
    keepsSources: false,
    verify: "readback",
    isOnline: false,
    files: ["/a\u009b.yaml", "/b.yaml"],
  },
  executor: "host:1:main:",
  objects: 1200,
  bytes: 5_000_000,
  createdAt: new Date("2026-11-24T10:00:00Z"),
  startedAt: new Date("2026-11-24T10:00:00Z"),
  endedAt: new Date("2026-11-24T10:00:10Z"),
  updatedAt: new Date("2026-11-24T10:00:10Z"),
  counts: {
    planned: none,
    copied: none,
    verified: none,
    switched: none,
    done: { objects: 1200, bytes: 5_000_000 },
    superseded: none,
    abandoned: none,
    failed: none,
  },
} as unknown as RecordedMigration;

const incomplete: RecordedMigration = {
  ...complete,
  state: "incomplete",
  counts: {
    ...complete.counts,
    planned: { objects: 30, bytes: 100 },
    done: { objects: 1170, bytes: 4_999_900 },
    failed: { objects: 30, bytes: 100 },
  },
};

const failures: readonly FailedMove[] = Array.from({ length: 30 }, (_, index) => ({
  account: "admin",
  bucket: "layer_data",
  key: `key-${index}\u001b[2J`,
  state: "planned",
  attempts: 3,
  code: "BACKEND_FAILED",
  text: "it\u009b said no",
}));

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "stowage-test-migrate-"));
  for (const name of ["a", "b"]) await writeFile(join(directory, `${name}.yaml`), "");
});
afterAll(() => rm(directory, { recursive: true, force: true }));

interface World {
  readonly record?: RecordedMigration;
  readonly failures?: readonly FailedMove[];
  readonly run?: (work: MigrationWork, call: Call) => Promise<RecordedMigration>;
  readonly steps?: readonly CheckStep[];
  readonly others?: readonly string[];
  readonly objects?: number;
  readonly isSamePlace?: boolean;
  readonly otherPlaces?: StowageError;
  readonly unfinished?: RecordedMigration;
  readonly stdin?: string;
  readonly stdout?: FakeStream;
  readonly stderr?: FakeStream;
  readonly signal?: AbortSignal;
}

async function run(line: string, world: World = {}) {
  const record = world.record ?? complete;
  const asked: string[] = [];
  const objects = world.objects ?? 1200;
  const group = { bucket: "layer_data\u009b", from: "db", to: place, objects, bytes: 5_000_000 };
  const migrator: Migrator = {
    async list() {
      return [record, { ...record, id: 4, state: "interrupted", startedAt: undefined, endedAt: undefined }];
    },
    get: async (id) => ({ ...record, id }),
    async *failures() {
      yield* world.failures ?? [];
    },
    cancel: async () => ({ ...incomplete, state: "cancelled" }),
    async survey() {
      asked.push("survey");
      const groups = objects === 0 ? [] : [group];
      const isSamePlace = world.isSamePlace ?? false;
      return { groups, objects, bytes: 5_000_000, isSamePlace, unfinished: world.unfinished };
    },
    rehearse: () =>
      ({
        async *steps() {
          for (const step of world.steps ?? []) yield { place, step };
        },
        estimate: async () => ({ seconds: 65, space: [{ place, neededBytes: 5_000_000, freeBytes: 1000 }] }),
      }) as unknown as ReturnType<Migrator["rehearse"]>,
    others: async () => world.others ?? [],
    async enter(isOnline) {
      asked.push(isOnline ? "share" : "take");
    },
    async refuseOtherPlaces() {
      if (world.otherPlaces !== undefined) throw world.otherPlaces;
    },
    async plan() {
      asked.push("plan");
      return 3;
    },
    async run(id, work, call) {
      asked.push(`run ${id}`);
      return (await world.run?.(work, call)) ?? record;
    },
    leftElsewhere: async () => [{ place, objects: 7 }],
    [Symbol.asyncDispose]: async () => {
      asked.push("close");
    },
  };
  const stdout = world.stdout ?? new FakeStream();
  const stderr = world.stderr ?? new FakeStream();
  const stdin = Object.assign(new PassThrough(), { isTTY: false });
  stdin.end(world.stdin ?? "");
  const files = new Map([
    ["A", join(directory, "a.yaml")],
    ["B", join(directory, "b.yaml")],
  ]);
  const code = await runCommandLine(
    line.split(" ").map((word) => files.get(word) ?? word),
    "1.2.3",
    {
      stdin,
      stdout,
      stderr,
      environment: readEnvironment({ HOME: "/home/x" }),
      openApplication: async () => {
        throw new TypeError("no command here opens the application");
      },
      openStoreCheck: async () => {
        throw new TypeError("no command here checks stores");
      },
      openMigrator: async () => migrator,
      openMigrationJournal: async () => migrator,
    },
    world.signal ?? new AbortController().signal,
  );
  for (const stream of [stdout, stderr]) if (!stream.failure) await new Promise((resolve) => stream.write("", resolve));
  if (!stdout.failure) expect(stdout.text + stderr.text).not.toMatch(unprintable);
  return { code, stdout: stdout.text, stderr: stderr.text, asked };
}

const eventsIn = (text: string) =>
  text
    .trim()
    .split("\n")
    .map((line) => documents["objectstorage-migrate"].parse(JSON.parse(line)));

describe("migrate", () => {
  it("says what would go where, asks, and does it", async () => {
    const { code, stdout, stderr, asked } = await run("objectstorage migrate A B", {
      stdin: "y\n",
      others: ["evil\u001b[2J"],
    });
    expect(code).toBe(0);
    expect(asked).toEqual(["survey", "take", "plan", "run 3", "close"]);
    expect(stdout).toMatch(/^layer_data\\u\{009b\} +db +localfs \S+ +1,200 +5.00 MB$/m);
    expect(stdout).toMatch(/^archive_documents_to_migrate +1,200$/m);
    expect(stdout).toMatch(/^rate +500 kB\/s$/m);
    expect(stderr).toContain("in use by: evil\\x1b[2J");
    expect(stderr).toContain("other_object_stores");
  });

  it.each(["n\n", "", "yesterday\n"])("does nothing on %j", async (stdin) => {
    const { code, stdout, asked } = await run("objectstorage migrate A B", { stdin });
    expect({ code, asked }).toEqual({ code: 0, asked: ["survey", "close"] });
    expect(stdout).toMatch(/^Skipping conversion[.]$/m);
    const json = await run("objectstorage migrate A B -o json", { stdin });
    expect(eventsIn(json.stdout).map(({ event }) => event)).toEqual(["plan", "declined"]);
  });

  it("tells how far it is: lines of progress, or events", async () => {
    const snapshot = { id: 3, phase: "moving", objects: 1200, bytes: 5_000_000, failures: 0 } as const;
    const moving = async ({ watch }: MigrationWork) => {
      watch({ ...snapshot, objectsDone: 0, bytesDone: 0, bytesCopied: 0 });
      watch({ ...snapshot, objectsDone: 600, bytesDone: 2_000_000, bytesCopied: 2_500_000, failures: 2 });
      watch({
        ...snapshot,
        phase: "trying again",
        objectsDone: 1100,
        bytesDone: 4_000_000,
        bytesCopied: 4_000_000,
        failures: 2,
      });
      return complete;
    };
    const text = await run("objectstorage migrate A B -y", { run: moving });
    expect(text.stderr).toMatch(/^moving: 0 of 1,200 objects: started, 5.00 MB$/m);
    expect(text.stderr).toMatch(/^trying again: 1,100 of 1,200 objects, 2 failed so far: complete /m);
    const { stdout, stderr } = await run("objectstorage migrate A B -y -o json", { run: moving });
    const events = eventsIn(stdout);
    expect(events.map(({ event }) => event)).toEqual([
      "plan",
      "started",
      "progress",
      "progress",
      "configuration",
      "summary",
    ]);
    expect(events[3]).toMatchObject({ phase: "trying again", objects_done: 1100, bytes_done: 4_000_000, failures: 2 });
    expect(stderr).not.toContain("progress");
  });

  it("goes on with one that was begun, as it was begun, and moves what has come since", async () => {
    const unfinished = { ...incomplete, id: 2, options: { ...incomplete.options, isOnline: true } };
    const { code, stdout, asked } = await run("objectstorage migrate A B -y --online", { unfinished });
    expect(code).toBe(0);
    expect(asked).toEqual(["survey", "share", "run 2", "survey", "plan", "run 3", "close"]);
    expect(stdout).toMatch(/^going on with migration 2 of .*, which is incomplete: 1,170 of 1,200 objects done$/m);
  });

  it.each([
    ["", { isOnline: true }, /begun with --online/],
    ["--online", {}, /begun without --online/],
    ["", { verify: "checksum" }, /begun with --verify checksum/],
    ["--verify checksum --online --dry-run", {}, /begun with --verify readback and without --online/],
  ] as const)("refuses to go on with one in another way: migrate %s", async (flags, options, told) => {
    const unfinished = { ...incomplete, id: 2, options: { ...incomplete.options, ...options } };
    const line = `objectstorage migrate A B -y ${flags}`.trim();
    const { code, stderr, asked } = await run(line, { unfinished });
    expect({ code, asked }).toEqual({ code: 1, asked: ["survey", "close"] });
    expect(stderr).toMatch(told);
    expect(stderr).toContain("stowage objectstorage migration resume 2");
    expect(stderr).toContain("code: MIGRATION_DIFFERS");
  });

  it("finds out before anything moves that the configuration can't be written", async () => {
    for (const file of [join(directory, "missing", "x.yaml"), join(directory, "a.yaml"), join(directory, "a.yaml/x")]) {
      const { code, stderr, asked } = await run(`objectstorage migrate A B -y --write-config ${file}`);
      expect({ code, asked }).toEqual({ code: 2, asked: [] });
      expect(stderr).toContain("--write-config");
    }
  });

  it("shows the configuration, and names the file, when it can't be written at the end", async () => {
    for (const format of ["table", "json"]) {
      const gone = join(directory, `gone-${format}`);
      await mkdir(gone);
      const { code, stdout, stderr } = await run(
        `objectstorage migrate A B -y -o ${format} --write-config ${gone}/x.yaml`,
        {
          run: async () => {
            await rm(gone, { recursive: true });
            return complete;
          },
        },
      );
      expect(code).toBe(1);
      expect(stderr).toMatch(/INPUT_FILE_UNWRITABLE/);
      expect(stderr).toContain(`${gone}/x.yaml`);
      if (format === "table") expect(stdout).toContain("your configuration must have these sections");
      else {
        const [configuration, summary] = eventsIn(stdout).slice(-2);
        expect(configuration).toMatchObject({
          event: "configuration",
          text: expect.stringContaining("storage_driver"),
        });
        expect(configuration).not.toHaveProperty("file");
        expect(summary).toMatchObject({ event: "summary", state: "complete" });
      }
    }
  });

  it("ends with 1 when something is left, names the first failures and how to see all", async () => {
    const { code, stdout, stderr } = await run("objectstorage migrate A B -y", { record: incomplete, failures });
    expect(code).toBe(1);
    expect(stdout.match(/^admin\/layer_data\/key-/gm)).toHaveLength(20);
    expect(stdout).toContain("and 10 more: stowage objectstorage migration show 3");
    expect(stdout).not.toContain("After this migration");
    expect(stderr).toMatch(/code: MIGRATION_INCOMPLETE/);
    const json = await run("objectstorage migrate A B -y -o json", { record: incomplete, failures });
    expect(json.code).toBe(1);
    const events = eventsIn(json.stdout);
    expect(events.filter(({ event }) => event === "failure")).toHaveLength(20);
    expect(events.at(-1)).toMatchObject({ event: "summary", state: "incomplete", failed: 30 });
  });

  it("is no less incomplete when nobody reads of it", async () => {
    for (const format of ["json", "table"]) {
      const stdout = new FakeStream();
      const gone = async () => {
        stdout.failure = "EPIPE";
        return incomplete;
      };
      const { code, stderr } = await run(`objectstorage migrate A B -y -o ${format}`, { run: gone, stdout });
      expect(code).toBe(1);
      expect(stderr).toContain("MIGRATION_INCOMPLETE");
    }
  });

  it("says how to go on when it is interrupted or fails", async () => {
    const abort = new AbortController();
    const interrupted = async () => {
      abort.abort(new StowageError("INPUT_INTERRUPTED", { what: "SIGINT" }));
      throw new StowageError("INPUT_INTERRUPTED", {});
    };
    const stopped = await run("objectstorage migrate A B -y", { run: interrupted, signal: abort.signal });
    expect(stopped.code).toBe(130);
    expect(stopped.stderr).toContain("go on with: stowage objectstorage migration resume 3");
    const lost = async (): Promise<never> => {
      throw new StowageError("DB_UNREACHABLE", { database: "d" });
    };
    const failed = await run("objectstorage migrate A B -y", { run: lost });
    expect(failed.code).toBe(3);
    expect(failed.stderr).toContain("go on with: stowage objectstorage migration resume 3");
    const lockLost = async (): Promise<never> => {
      throw new StowageError("DB_LOCK_LOST", { lock: "l" }, { hint: "nothing was left half done" });
    };
    const half = await run("objectstorage migrate A B -y", { run: lockLost });
    expect(half.stderr).toContain(
      "hint: what was moved stays moved; go on with: stowage objectstorage migration resume 3",
    );
    expect(half.stderr).not.toContain("half done");
  });

  it("says at once how to go on when it is interrupted, since a second interrupt leaves no time", async () => {
    const abort = new AbortController();
    let told = "";
    const stderr = new FakeStream();
    const { code } = await run("objectstorage migrate A B -y", {
      stderr,
      signal: abort.signal,
      run: async () => {
        abort.abort(new StowageError("INPUT_INTERRUPTED", { what: "SIGINT" }));
        await new Promise((resolve) => stderr.write("", resolve));
        told = stderr.text;
        throw new StowageError("INPUT_INTERRUPTED", {});
      },
    });
    expect(code).toBe(130);
    expect(told).toContain("go on with: stowage objectstorage migration resume 3");
  });

  it("says how long it waits for readers", async () => {
    const snapshot = { id: 3, phase: "moving", objects: 2, bytes: 10, failures: 0 } as const;
    const done = { objectsDone: 2, bytesDone: 10, bytesCopied: 10 };
    const waiting = async ({ watch }: MigrationWork) => {
      watch({ ...snapshot, objectsDone: 0, bytesDone: 0, bytesCopied: 0 });
      const waitsUntil = new Date(Date.now() + 3_600_000);
      watch({ ...snapshot, ...done, phase: "waiting for readers", waitsUntil });
      return complete;
    };
    const text = await run("objectstorage migrate A B -y", { run: waiting });
    expect(text.stderr).toMatch(/^waiting for readers for (1 h 00 min|59 min 5\d s) more: 2 of 2 objects: /m);
    const { stdout } = await run("objectstorage migrate A B -y -o json", { run: waiting });
    const event = eventsIn(stdout).findLast(({ event }) => event === "progress");
    expect(event).toMatchObject({ phase: "waiting for readers", waits_until: expect.stringMatching(/T.*Z$/) });
    expect(event).toMatchObject({ seconds_left: expect.any(Number) });
  });

  it("--dry-run tells which step fails, and that the space is too small", async () => {
    const error = new StowageError("BACKEND_DENIED", { driver: "s3", operation: "put", reason: "no\u001b[2J" });
    const step = { name: "write", outcome: "failed", durationMs: 1.2, detail: undefined, error } as const;
    const { code, stdout, asked } = await run("objectstorage migrate A B --dry-run", { steps: [step] });
    expect({ code, asked }).toEqual({ code: 1, asked: ["survey", "close"] });
    expect(stdout).toMatch(/^FAILED {2}localfs .*: write: .*refused access/m);
    expect(stdout).toContain("1,200 objects, 5.00 MB: about 1 min 05 s; nothing was moved");
    expect(stdout).toMatch(/5.00 MB needed, 1.00 kB free: not enough$/m);
    const json = await run("objectstorage migrate A B --dry-run -o json", { steps: [step] });
    expect(eventsIn(json.stdout).map(({ event }) => event)).toEqual(["plan", "check", "estimate"]);
  });

  it("asks nothing when there is nothing to move", async () => {
    const { code, stdout, asked } = await run("objectstorage migrate A B", { objects: 0 });
    expect({ code, asked }).toEqual({ code: 0, asked: ["survey", "close"] });
    expect(stdout).toContain("nothing to move: no selected document");
    const same = await run("objectstorage migrate A B", { objects: 0, isSamePlace: true });
    expect(same.stdout).toContain("nothing to move: source and destination are the same place");
    const json = await run("objectstorage migrate A B -o json", { objects: 0, isSamePlace: true });
    expect(eventsIn(json.stdout)).toMatchObject([{ event: "plan", isSamePlace: true }, { event: "configuration" }]);
  });
});

describe("the journal", () => {
  it.each([
    ["objectstorage list-migrations", "objectstorage-list-migrations"],
    ["objectstorage migration show 3", "objectstorage-migration-show"],
    ["objectstorage migration cancel 3", "objectstorage-migration-cancel"],
  ] as const)("%s prints what is documented", async (line, name) => {
    const { code, stdout } = await run(`${line} -o json`, { record: incomplete, failures });
    expect(code).toBe(0);
    documents[name].parse(JSON.parse(stdout));
    expect((await run(line, { record: incomplete, failures })).code).toBe(0);
  });

  it("shows every failure, and nothing that moves the cursor", async () => {
    const { stdout } = await run("objectstorage migration show 3", { record: incomplete, failures });
    expect(stdout.match(/^admin\/layer_data\/key-/gm)).toHaveLength(30);
    expect(stdout).toContain("files: /a\\u{009b}.yaml → /b.yaml");
    expect(stdout).toMatch(/^last_state +running$/m);
  });

  it("lists what is interrupted without a rate", async () => {
    const { stdout } = await run("objectstorage list-migrations");
    expect(stdout).toMatch(/^ +3 +complete .* db +localfs +1,200 +1,200 .* 5.00 MB +0 +500 kB\/s$/m);
    expect(stdout).toMatch(/^ +4 +interrupted +- +- +db .* -$/m);
  });
});

describe("migration resume", () => {
  it("refuses files that do not lead to its places, also when it is complete", async () => {
    const otherPlaces = new StowageError("CONFIG_INVALID", { file: "b.yaml", reason: "other" });
    for (const record of [incomplete, complete]) {
      const { code, stdout, asked } = await run("objectstorage migration resume 3 B A -y", { record, otherPlaces });
      expect({ code, stdout, asked }).toEqual({ code: 2, stdout: "", asked: ["close"] });
    }
  });

  it("refuses one that was cancelled, and half of the files", async () => {
    const cancelled = { ...incomplete, state: "cancelled" } as const;
    expect((await run("objectstorage migration resume 3 -y A B", { record: cancelled })).code).toBe(2);
    expect((await run("objectstorage migration resume 3 -y A")).code).toBe(2);
  });

  it("tries what is left", async () => {
    const { code, stderr, asked } = await run("objectstorage migration resume 3 A B", {
      record: incomplete,
      run: async () => complete,
      stdin: "y\n",
    });
    expect(code).toBe(0);
    expect(asked).toEqual(["take", "run 3", "close"]);
    expect(stderr).toContain("1,170 of 1,200 objects done");
  });
});
