import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { FakeStream } from "../../test/cli/streams.ts";
import type {
  AnalysisOutcome,
  Application,
  ApplicationOptions,
  FileRecord,
  ImageDetails,
  PackageRecord,
} from "../app/index.ts";
import { defaultLimits, readEnvironment } from "../config/index.ts";
import { StowageError, toStowageError } from "../errors/index.ts";
import type { Call } from "../runtime/index.ts";
import { documents } from "./documents.ts";
import { runCommandLine } from "./run.ts";

const digest = `sha256:${"1".repeat(64)}`;
const image: ImageDetails = {
  digest,
  imageId: `sha256:${"2".repeat(64)}`,
  parentDigest: `sha256:${"3".repeat(64)}`,
  fullTags: ["docker.io/library/alpine:3.20", "evil\u001b[2J:1"],
  platform: "linux/amd64",
  distribution: undefined,
  layers: 1,
  files: 3,
  packages: { apk: 1 },
  blobBytes: 100,
  fileBytes: 200,
  damage: undefined,
  analyzedAt: new Date(0),
  layerList: [{ position: 0, blobDigest: digest, diffId: digest, mediaType: "x", blobBytes: 100, isFetched: false }],
  notes: [{ code: "whiteout.late", layer: undefined, path: "a\nb", text: "unpackers disagree" }],
  notesLeftOut: 2,
  suidFiles: [{ path: "bin/su", mode: "4755" }],
  users: 20,
  config: { any: ["thing", null, 1] },
};

/** Streams of a closed application are closed, as the real one's are. */
async function* whileOpen<T>(application: FakeApplication, items: AsyncIterable<T>): AsyncGenerator<T> {
  for await (const item of items) {
    if (application.isClosed) throw new Error("used after it was closed");
    yield item;
  }
}

async function* packages(): AsyncGenerator<PackageRecord> {
  const fields = { version: "1", licenses: ["MIT"], location: "lib/apk/db/installed", layer: 0, cataloger: "apk" };
  const files = (async function* () {
    yield { path: "bin/sh", digest: "sha1:00", mode: 0o755 };
  })();
  yield {
    type: "apk",
    name: "musl",
    purl: "pkg:apk/alpine/musl@1",
    owned: [{ layer: 0, ordinal: 1 }],
    files,
    ...fields,
  };
  yield { type: "npm", name: "evil\u009b", purl: "pkg:npm/evil@1", owned: [], ...fields };
}

async function* files(): AsyncGenerator<FileRecord> {
  const fields = { uid: 0, gid: 5, layer: 0 };
  yield { path: "bin", type: "dir", mode: "1777", sizeBytes: 0, isImplied: true, ...fields };
  yield {
    path: "bin/\udcff",
    type: "file",
    mode: "6755",
    sizeBytes: 9,
    sha256: "ab".repeat(32),
    hardlinkOf: "x",
    ...fields,
  };
  yield { path: "bin/sh", type: "symlink", mode: "0777", sizeBytes: 0, linkTarget: "../\u001b", ...fields };
  yield { path: "dev/null", type: "char", mode: "0666", sizeBytes: 0, device: "1:3", ...fields };
}

class FakeApplication implements Application {
  readonly asked: unknown[] = [];
  closed = 0;
  isClosed = false;
  analyze: Application["analyze"] = async (source, { progress, ...options }) => {
    this.asked.push([source, options]);
    const task = progress.begin("layer 1/1", 100);
    task.advance(100);
    task.end("analysed");
    return {
      digest: digest as never,
      imageId: digest as never,
      fullTag: undefined,
      platform: "linux/amd64",
      distribution: { id: "alpine", version: "3.20", like: [] },
      layers: [
        {
          blobDigest: digest as never,
          diffId: digest as never,
          mediaType: "x",
          blobBytes: 100,
          outcome: "analyzed",
          entries: 3,
          bytesRead: 100,
          durationMs: 1.5,
        },
      ],
      files: 3,
      packages: { apk: 1 },
      bytesRead: 100,
      bytesStored: 10,
      notes: 1,
      wasKnown: false,
      durationMs: 2.5,
    };
  };
  analyzeSeveral: Application["analyzeSeveral"] = async (
    { sources, repositories },
    { progress, ...options },
    call: Call,
  ) => {
    const all = [...sources, ...repositories];
    const outcomes: AnalysisOutcome[] = [];
    progress.plan(all.length);
    for (const source of all) {
      try {
        if (call.signal.aborted) outcomes.push({ source, outcome: "notDone" });
        else {
          const report = await this.analyze(source, { ...options, progress: progress.beginSource(source) }, call);
          outcomes.push({ source, outcome: "analyzed", report });
        }
      } catch (error) {
        outcomes.push({ source, outcome: "failed", error: toStowageError(error) });
      }
      const outcome = outcomes.at(-1);
      if (outcome && outcome.outcome !== "notDone") progress.endSource(outcome);
    }
    return outcomes;
  };
  async *listImages() {
    const {
      parentDigest: _1,
      layerList: _2,
      notes: _3,
      notesLeftOut: _4,
      suidFiles: _5,
      users: _6,
      config: _7,
      ...rest
    } = image;
    yield* whileOpen(
      this,
      (async function* () {
        yield rest;
      })(),
    );
  }
  async getImage(name: string): Promise<ImageDetails> {
    if (name === "missing")
      throw new StowageError("IMAGE_NOT_FOUND", { image: name }, { hint: "see: stowage image list" });
    return image;
  }
  async packagesOf(name: string, types: readonly string[]) {
    this.asked.push([name, types]);
    return { digest, items: whileOpen(this, packages()) };
  }
  async filesOf() {
    return { digest, items: whileOpen(this, files()) };
  }
  async deleteImage(name: string) {
    this.asked.push(["delete", name]);
    return { digest, fullTags: image.fullTags, bytesReclaimed: 12_345 };
  }
  get objectStorage(): never {
    throw new TypeError("no command here looks after stores");
  }
  async [Symbol.asyncDispose]() {
    this.closed++;
    this.isClosed = true;
  }
}

interface World {
  readonly application?: FakeApplication;
  readonly environment?: NodeJS.ProcessEnv;
  readonly terminal?: { readonly columns: number; readonly rows: number };
  readonly signal?: AbortSignal;
  readonly stdin?: string;
  readonly stdout?: FakeStream;
}

async function run(line: string, world: World = {}) {
  const application = world.application ?? new FakeApplication();
  const closedBefore = application.closed;
  const stdout = world.stdout ?? new FakeStream(world.terminal);
  const stderr = new FakeStream(world.terminal);
  const stdin = Object.assign(new PassThrough(), { isTTY: world.terminal !== undefined });
  if (world.stdin !== undefined) stdin.end(world.stdin);
  const opened: ApplicationOptions[] = [];
  const host = {
    stdin,
    stdout,
    stderr,
    environment: readEnvironment({ HOME: "/home/x", ...world.environment }),
    async openApplication(options: ApplicationOptions, _call: Call) {
      opened.push(options);
      application.isClosed = false;
      return application;
    },
    openMigrator: async (): Promise<never> => {
      throw new TypeError("no command here migrates");
    },
    openMigrationJournal: async (): Promise<never> => {
      throw new TypeError("no command here migrates");
    },
    async openStoreCheck(): Promise<never> {
      throw new TypeError("no command here checks stores");
    },
  };
  const code = await runCommandLine(
    line.split(" ").filter(Boolean),
    "1.2.3",
    host,
    world.signal ?? new AbortController().signal,
  );
  for (const stream of [stdout, stderr]) {
    if (!stream.failure) await new Promise((resolve) => stream.write("", resolve));
  }
  expect(application.closed - closedBefore).toBe(opened.length);
  return { code, stdout: stdout.text, stderr: stderr.text, options: opened[0], asked: application.asked };
}

describe("documents", () => {
  it.each([
    ["analyze alpine", "analyze"],
    ["analyze alpine debian", "analyze-several"],
    ["analyze --all-tags alpine", "analyze-several"],
    ["image list", "image-list"],
    ["image get x", "image-get"],
    ["image content x os", "image-content-packages"],
    ["image content x npm", "image-content-packages"],
    ["image content x files", "image-content-files"],
    ["image delete x", "image-delete"],
    ["config show", "config-show"],
  ] as const)("%s prints what is documented", async (line, name) => {
    const { code, stdout } = await run(`${line} -o json`);
    expect(code).toBe(0);
    documents[name].parse(JSON.parse(stdout));
  });

  it("has the files of packages, and paths that are not UTF-8", async () => {
    const os = JSON.parse((await run("image content x os -o json")).stdout);
    expect(os.packages[0].files).toEqual([{ path: "bin/sh", digest: "sha1:00", mode: 0o755 }]);
    expect(os.packages[0]).not.toHaveProperty("owned");
    const all = JSON.parse((await run("image content x files -o json")).stdout);
    expect(all.files[1].path).toBe("bin/\udcff");
  });

  it("keeps standard error to JSON lines", async () => {
    const { stderr } = await run("analyze alpine -o json");
    const events = stderr
      .trim()
      .split("\n")
      .map((line) => documents.progress.parse(JSON.parse(line)).progress.event);
    expect(events).toEqual(["started", "ended"]);
    const failed = await run("image get missing -o json");
    expect(failed).toMatchObject({ code: 1, stdout: "" });
    expect(documents.error.parse(JSON.parse(failed.stderr)).error).toMatchObject({
      code: "IMAGE_NOT_FOUND",
      details: { image: "missing" },
      hint: "see: stowage image list",
    });
  });
});

describe("text", () => {
  it("shows files as ls would, escaped", async () => {
    const { stdout } = await run("image content x files");
    expect(stdout.split("\n").map((line) => line.replace(/ +/g, " "))).toEqual([
      "drwxrwxrwt 0:5 0 - bin",
      `-rwsr-sr-x 0:5 9 ${"ab".repeat(32)} bin/\\xff link to x`,
      "lrwxrwxrwx 0:5 0 - bin/sh -> ../\\x1b",
      "crw-rw-rw- 0:5 1:3 - dev/null",
      "",
    ]);
  });

  it("has no control characters that an image chose", async () => {
    const lines = [
      "analyze x",
      "image list",
      "image get x",
      "image content x os",
      "image content x files",
      "image delete x",
    ];
    for (const line of lines) {
      const { code, stdout } = await run(line);
      expect(code).toBe(0);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
      expect(stdout).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]/);
    }
  });

  it("has colours only where they are wished for", async () => {
    const terminal = { columns: 100, rows: 24 };
    const escapeCodes = async (line: string, world: World) => (await run(line, world)).stdout.includes("\u001b[1m");
    expect(await escapeCodes("image list", {})).toBe(false);
    expect(await escapeCodes("image list", { terminal })).toBe(true);
    expect(await escapeCodes("image list --no-color", { terminal })).toBe(false);
    expect(await escapeCodes("image list", { terminal, environment: { NO_COLOR: "1" } })).toBe(false);
    expect(await escapeCodes("image list", { terminal, environment: { TERM: "dumb" } })).toBe(false);
    expect(await escapeCodes("image list", { environment: { FORCE_COLOR: "1" } })).toBe(true);
    expect(await escapeCodes("image list", { environment: { FORCE_COLOR: "0" } })).toBe(false);
    expect(await escapeCodes("image list", { environment: { FORCE_COLOR: "1", NO_COLOR: "1" } })).toBe(false);
  });

  it("has no progress with --quiet", async () => {
    expect((await run("analyze x")).stderr).toMatch(/^layer 1\/1: started, 100 B\nlayer 1\/1: analysed \(.*\)\n$/);
    expect((await run("analyze x --quiet")).stderr).toBe("");
  });
});

describe("options", () => {
  it("are taken before and after the command", async () => {
    for (const line of [
      "--data-dir /d --limit layersMax=7 image list",
      "image list --limit layersMax=7 --data-dir /d",
    ]) {
      const { options } = await run(line, { environment: { STOWAGE_LIMITS: "layersMax=5,notesMax=3" } });
      expect(options?.database).toEqual({ kind: "embedded", dataDirectory: "/d" });
      expect(options?.limits).toEqual({ ...defaultLimits, layersMax: 7, notesMax: 3 });
    }
  });

  it("choose the database, the command line before the environment", async () => {
    const environment = { STOWAGE_DB_CONNECT: "postgresql://e/e", STOWAGE_DATA_DIR: "/e" };
    const database = async (line: string, variables: NodeJS.ProcessEnv = {}) =>
      (await run(line, { environment: variables })).options?.database;
    expect(await database("image list", environment)).toEqual({ kind: "server", url: "postgresql://e/e" });
    expect(await database("image list --data-dir /d", environment)).toEqual({ kind: "embedded", dataDirectory: "/d" });
    expect(await database("image list --db-connect postgresql://f/f", environment)).toEqual({
      kind: "server",
      url: "postgresql://f/f",
    });
    expect(await database("image list", { STOWAGE_DATA_DIR: "/e" })).toEqual({ kind: "embedded", dataDirectory: "/e" });
    expect((await run("image list --db-connect u --data-dir d")).code).toBe(2);
  });

  it("reach the analysis", async () => {
    expect((await run("analyze oci:x --platform linux/arm64 --name a:1 --insecure")).asked).toEqual([
      ["oci:x", { platform: "linux/arm64", name: "a:1", insecure: true }],
    ]);
    expect((await run("analyze oci:x")).asked).toEqual([["oci:x", { insecure: false }]]);
  });

  it("os means three types", async () => {
    expect((await run("image content x os")).asked).toEqual([["x", ["apk", "dpkg", "rpm"]]]);
    expect((await run("image content x python")).asked).toEqual([["x", ["python"]]]);
  });
});

describe("config", () => {
  const reference = `\${SECRET_KEY}`;
  const lines = [
    "log_level: INFO",
    "credentials: {database: {db_connect: 'postgresql://anchore:geheim@db/anchore', db_connect_args: {ssl: true, timeout: 7}}}",
    "services:",
    "  catalog:",
    `    object_store: {storage_driver: {name: s3, config: {bucket: bbb, access_key: AKID, secret_key: ${reference}}}}`,
  ];
  const variables = { SECRET_KEY: "hunter2hunter2" };

  async function withFile<T>(text: string, use: (file: string) => Promise<T>): Promise<T> {
    const directory = await mkdtemp(join(tmpdir(), "stowage-cli-config-"));
    try {
      await writeFile(join(directory, "config.yaml"), text);
      return await use(join(directory, "config.yaml"));
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  it("reaches the application: stores, database and temporary directory", async () => {
    await withFile(`${lines.join("\n")}\ntmp_dir: /scratch\n`, async (file) => {
      for (const [line, environment] of [
        [`image list --config ${file}`, variables],
        ["image list", { ...variables, STOWAGE_CONFIG: file }],
        ["image list", { ...variables, XDG_CONFIG_HOME: "/nonexistent", STOWAGE_CONFIG: file }],
      ] as const) {
        const { options, stderr } = await run(line, { environment });
        expect(options?.configuration).toMatchObject({ file, objectStore: { name: "s3", config: { bucket: "bbb" } } });
        expect(options?.temporaryDirectory).toBe("/scratch");
        expect(options?.database).toEqual({
          kind: "server",
          url: "postgresql://anchore:geheim@db/anchore",
          settings: { isSslRequired: true, connectTimeoutMs: 7000 },
        });
        expect(stderr).toContain("keys that have no meaning here: log_level");
        expect(stderr).not.toMatch(/geheim|hunter2/);
      }
    });
  });

  it("names the database where neither option nor variable does; --data-dir does not take it back silently", async () => {
    await withFile(lines.join("\n"), async (file) => {
      const found = async (line: string, more: NodeJS.ProcessEnv = {}) =>
        await run(`image list --config ${file} ${line}`, { environment: { ...variables, ...more } });
      const url = "postgresql://o/o";
      expect((await found(`--db-connect ${url}`)).options?.database).toEqual({ kind: "server", url });
      expect((await found("", { STOWAGE_DB_CONNECT: url })).options?.database).toEqual({ kind: "server", url });
      const beside = await found("--data-dir /d", { STOWAGE_DB_CONNECT: url });
      expect(beside.options?.database).toMatchObject({ url: "postgresql://anchore:geheim@db/anchore" });
      expect(beside.stderr).toContain("--data-dir is not used");
    });
    await withFile("services: {}", async (file) => {
      const { options } = await run(`image list --config ${file} --data-dir /d`);
      expect(options?.database).toEqual({ kind: "embedded", dataDirectory: "/d" });
    });
  });

  it("validate and show print what is documented, and open nothing", async () => {
    await withFile(lines.join("\n"), async (file) => {
      for (const [line, name] of [
        [`config validate ${file}`, "config-validate"],
        [`config show --config ${file}`, "config-show"],
      ] as const) {
        const json = await run(`${line} -o json`, { environment: variables });
        expect(json).toMatchObject({ code: 0, stderr: "", options: undefined });
        documents[name].parse(JSON.parse(json.stdout));
        const text = await run(line, { environment: variables });
        expect(text).toMatchObject({ code: 0, stderr: "", options: undefined });
        expect(json.stdout + text.stdout).not.toMatch(/geheim|hunter2|AKID/);
      }
    });
  });

  it("a mistake ends any command with 2, before anything is opened", async () => {
    await withFile("object_store: {}", async (file) => {
      for (const line of [`config validate ${file}`, `config show --config ${file}`, `image list --config ${file}`]) {
        const { code, stdout, stderr, options } = await run(line);
        expect({ code, stdout, options }).toEqual({ code: 2, stdout: "", options: undefined });
        expect(stderr).toContain("hint: move it to services.catalog.object_store\n");
      }
    });
    expect((await run("image list --config= ")).code).toBe(2);
    expect((await run("image list --config /nonexistent/config.yaml")).code).toBe(2);
  });
});

describe("failures", () => {
  it.each([
    ["image lst", "unknown command 'lst'", "did you mean list?"],
    ["analyze x --platfrom y", "unknown option '--platfrom'", "did you mean --platform?"],
    ["analyze", "missing required argument 'SOURCE'", "add --help"],
    ["image get a b", "too many arguments for 'get'", "add --help"],
    ["image content x foo", "Allowed choices are os, apk", "add --help"],
    ["image list -o yaml", "Allowed choices are table, json", "add --help"],
    ["image list --limit x=1", "no such limit", "limits are: manifestBytesMax"],
    ["image list --limit layersMax=-1", "not a positive whole number", undefined],
    ["image list --log-level loud", "Allowed choices are trace", "add --help"],
    ["image list --data-dir= ", "it is empty", undefined],
  ])("%s is a usage error", async (line, message, hint) => {
    const { code, stdout, stderr, options } = await run(line);
    expect({ code, stdout, options }).toEqual({ code: 2, stdout: "", options: undefined });
    expect(stderr).toContain(message);
    if (hint !== undefined) expect(stderr).toContain(`  hint: ${hint}`);
    expect(stderr).toMatch(/\n {2}code: (INPUT|CONFIG)_INVALID\n$/);
  });

  it.each(["", "image", "--quiet"])("'stowage %s' asks for a command", async (line) => {
    const { code, stdout, stderr } = await run(line);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/^Usage: stowage/);
  });

  it("a bad log level in the environment is named", async () => {
    const { code, stderr } = await run("image list", { environment: { STOWAGE_LOG_LEVEL: "loud" } });
    expect(code).toBe(2);
    expect(stderr).toContain("STOWAGE_LOG_LEVEL");
  });

  it("show message, hint and code, escaped and masked", async () => {
    const application = new FakeApplication();
    application.analyze = async () => {
      throw new StowageError(
        "REGISTRY_UNREACHABLE",
        { host: "evil\u001b[2J\nhost", reason: "https://me:hunter22@host/" },
        { hint: "check the name" },
      );
    };
    expect(await run("analyze x", { application })).toMatchObject({
      code: 3,
      stderr:
        "error: the registry can't be reached (host: evil\\x1b[2J host; reason: https://me:********@host/)\n  hint: check the name\n  code: REGISTRY_UNREACHABLE\n",
    });
  });

  it("an unexpected error is an internal failure", async () => {
    const application = new FakeApplication();
    application.analyze = async () => {
      throw new TypeError("x is not a function");
    };
    const { code, stderr } = await run("analyze x", { application });
    expect(code).toBe(1);
    expect(stderr).toContain("INTERNAL_FAILURE");
    expect(stderr).toContain("--log-level debug");
    expect(stderr).not.toContain(import.meta.filename);
    const verbose = await run("analyze x --log-level debug", { application });
    expect(verbose.stderr).toMatch(/code: INTERNAL_FAILURE\n {2}TypeError: x is not a function\n {6}at /);
    expect(verbose.stderr).toContain(import.meta.filename);
  });

  it("a resource that can't be closed does not hide the failure before it", async () => {
    const application = new FakeApplication();
    application.getImage = async () => {
      throw new StowageError("DB_UNREACHABLE", { database: "d" });
    };
    application[Symbol.asyncDispose] = async () => {
      application.closed++;
      throw new Error("can't close");
    };
    expect(await run("image get x", { application })).toMatchObject({ code: 3 });
  });

  it("a reader that has gone is no failure, a full disk is one", async () => {
    const failing = (failure: string) => Object.assign(new FakeStream(), { failure });
    expect(await run("image list", { stdout: failing("EPIPE") })).toMatchObject({ code: 0, stderr: "" });
    const full = await run("image list", { stdout: failing("ENOSPC") });
    expect(full.code).toBe(1);
    expect(full.stderr).toContain("INPUT_OUTPUT_FAILED");
  });

  it("an interrupt is the reason, whatever the command fails with, and the application is closed", async () => {
    const controller = new AbortController();
    const application = new FakeApplication();
    application.analyze = async (_source, _options, call) => {
      queueMicrotask(() => controller.abort(new StowageError("INPUT_INTERRUPTED", { what: "SIGINT" })));
      await new Promise((_resolve, reject) => {
        call.signal.addEventListener("abort", () => reject(new Error("socket closed")));
      });
      throw new Error("not reached");
    };
    const { code, stderr } = await run("analyze x", { application, signal: controller.signal });
    expect(code).toBe(130);
    expect(stderr).toBe("error: interrupted (what: SIGINT)\n  code: INPUT_INTERRUPTED\n");
  });
});

describe("image delete", () => {
  const terminal = { columns: 200, rows: 24 };

  it("asks on a terminal, and deletes what was agreed to", async () => {
    const { code, stdout, stderr, asked } = await run("image delete alpine:3.20", { terminal, stdin: "y\n" });
    expect(code).toBe(0);
    expect(stderr).toBe(`Delete the analysis of ${digest} (docker.io/library/alpine:3.20, evil\\x1b[2J:1)? [y/N] `);
    expect(stdout).toBe(
      `deleted ${digest}, 12.3 kB no longer needed\nuntagged docker.io/library/alpine:3.20\nuntagged evil\\x1b[2J:1\n`,
    );
    expect(asked).toEqual([["delete", digest]]);
  });

  it.each(["n\n", "\n", "yesterday\n", ""])("%j deletes nothing", async (stdin) => {
    const { code, stderr, asked } = await run("image delete x --no-color", { terminal, stdin });
    expect(code).toBe(1);
    expect(stderr).toContain("INPUT_DECLINED");
    expect(asked).toEqual([]);
  });

  it("does not ask with --yes, nor a script", async () => {
    expect(await run("image delete x -y", { terminal })).toMatchObject({
      code: 0,
      stderr: "",
      asked: [["delete", "x"]],
    });
    expect(await run("image delete x")).toMatchObject({ code: 0, stderr: "", asked: [["delete", "x"]] });
  });

  it("ends the question when interrupted", async () => {
    const reason = new StowageError("INPUT_INTERRUPTED", { what: "SIGINT" });
    const { code, asked } = await run("image delete x", { terminal, signal: AbortSignal.abort(reason) });
    expect(code).toBe(130);
    expect(asked).toEqual([]);
  });
});
