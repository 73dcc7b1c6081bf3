import { existsSync } from "node:fs";
import { open, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { documentOf, ended, startStowage, stowage, temporaryDirectory } from "./command.ts";
import { writeImages } from "./images.ts";

let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
/** In the database, and never moved. */
let still: Installation;

const path = (...names: readonly string[]) => join(directory.path, ...names);
const files = (name: string) => `{storage_driver: {name: localfs, config: {archive_data_dir: ${path(name)}}}}`;
const database = "{storage_driver: {name: db}}";

beforeAll(async () => {
  directory = await temporaryDirectory();
  writeImages(path("layout"));
  await configure("database.yaml", `object_store: ${database}`);
  await configure("files.yaml", `object_store: ${files("files")}`);
  await configure("other.yaml", `object_store: ${files("other")}`);
  await configure("still.yaml", `object_store: ${files("still")}`);
  await configure("both.yaml", `object_store: ${files("files")}`, `other_object_stores: [${files("other")}]`);
  await configure("split.yaml", `object_store: ${files("files")}`, `analysis_archive: ${files("archive")}`);
  still = await Installation.of("database.yaml");
});
afterAll(() => directory?.[Symbol.asyncDispose]());

async function configure(name: string, ...sections: readonly string[]): Promise<void> {
  await writeFile(path(name), `services:\n  catalog:\n${sections.map((line) => `    ${line}\n`).join("")}`);
}

/** A data directory with two images, stored as a configuration says. */
class Installation {
  static #count = 0;
  readonly #data: string;

  private constructor(data: string) {
    this.#data = data;
  }

  static async of(configuration: string): Promise<Installation> {
    for (const name of ["files", "other", "archive"]) await rm(path(name), { recursive: true, force: true });
    const made = new Installation(path(`data-${++Installation.#count}`));
    for (const which of ["1", "2"]) {
      const source = `oci:${path("layout")}:${which}`;
      const { code } = await made.run(
        "analyze",
        source,
        "--name",
        `example.com/app:${which}`,
        "-q",
        "--config",
        path(configuration),
      );
      expect(code).toBe(0);
    }
    return made;
  }

  get options(): readonly string[] {
    return ["--data-dir", this.#data];
  }

  run(...line: readonly string[]) {
    return stowage([...line, ...this.options]);
  }

  migrate(from: string, to: string, ...more: readonly string[]) {
    return this.run("objectstorage", "migrate", path(from), path(to), ...more);
  }

  /** Events of a migration that is done, each as documented. */
  async events(from: string, to: string, ...more: readonly string[]) {
    const { code, stdout, stderr } = await this.migrate(from, to, "--dontask", "-o", "json", ...more);
    return { code, stderr, events: eventsIn(stdout) };
  }

  /** A process that has the store open until it is interrupted. */
  async scrubSlowly(configuration: string) {
    const line = ["objectstorage", "scrub", "--max-rate", "1k", "--config", path(configuration)];
    const child = startStowage([...line, ...this.options]);
    const result = ended(child);
    await new Promise<void>((resolve) => {
      child.stderr?.on("data", (text: string) => text.includes("scrubbing") && resolve());
    });
    const interrupt = async () => {
      child.kill("SIGINT");
      return (await result).code;
    };
    return { pid: child.pid, interrupt };
  }

  async list() {
    const { code, stdout } = await this.run("objectstorage", "list-migrations", "-o", "json");
    expect(code).toBe(0);
    return documentOf("objectstorage-list-migrations", stdout).migrations;
  }

  /** Everything that is kept can be read with a configuration, and nothing is wrong at its stores. */
  async expectWhole(configuration: string): Promise<void> {
    for (const which of ["1", "2"]) {
      const read = await this.run(
        "image",
        "content",
        `example.com/app:${which}`,
        "files",
        "--config",
        path(configuration),
      );
      expect(read).toMatchObject({ code: 0, stderr: "" });
      expect(read.stdout).toContain("etc/os-release");
    }
    const scrub = await this.run("objectstorage", "scrub", "-q", "--config", path(configuration));
    expect(scrub).toMatchObject({ code: 0, stderr: "" });
  }
}

// biome-ignore lint/suspicious/noExplicitAny: events of many shapes
function eventsIn(stdout: string): any[] {
  const lines = stdout.trim().split("\n");
  return lines.map((line) => documentOf("objectstorage-migrate", line));
}

/** Documents in a directory, without what says whose it is. */
async function blobsIn(name: string): Promise<string[]> {
  if (!existsSync(path(name))) return [];
  const entries = await readdir(path(name), { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(".blob") && !entry.name.startsWith("0".repeat(24)))
    .map((entry) => join(entry.parentPath, entry.name));
}

/** Starts a migration that takes long, and waits until it moves. */
async function startSlowly(installation: Installation, from: string, to: string) {
  const line = ["objectstorage", "migrate", path(from), path(to), "--dontask", "--max-rate", "2k", "-o", "json"];
  const child = startStowage([...line, ...installation.options]);
  const result = ended(child);
  await new Promise<void>((resolve) => {
    let seen = "";
    child.stdout?.on("data", (text: string) => {
      seen += text;
      if (seen.includes('"progress"')) resolve();
    });
  });
  return { child, result };
}

describe("the documented patterns", () => {
  it("from one store to another, and back by swapping the files", async () => {
    const installation = await Installation.of("database.yaml");
    const there = await installation.migrate("database.yaml", "files.yaml", "-y");
    expect(there.code).toBe(0);
    expect(there.stdout).toMatch(/^layer_data +db +localfs archive_data_dir=\S+ +4 +\d+ kB$/m);
    expect(there.stdout).toMatch(/^all +8 +\d+ kB$/m);
    expect(there.stdout).toMatch(/^state +complete$/m);
    expect(there.stdout).toMatch(/^archive_documents_migrated +8$/m);
    expect(there.stdout).toContain(`archive_data_dir: ${path("files")}`);
    expect(there.stderr).toMatch(/^moving: 0 of 8 objects: started, /m);
    expect(await blobsIn("files")).toHaveLength(8);
    await installation.expectWhole("files.yaml");

    const back = await installation.events("files.yaml", "database.yaml");
    expect(back.code).toBe(0);
    expect(back.events.at(-1)).toMatchObject({
      event: "summary",
      id: 2,
      type: "archivemigrationtask",
      state: "complete",
      migrate_from_driver: "localfs",
      migrate_to_driver: "db",
      archive_documents_to_migrate: 8,
      archive_documents_migrated: 8,
      failed: 0,
    });
    expect(await blobsIn("files")).toEqual([]);
    await installation.expectWhole("database.yaml");
    const text = await installation.run("objectstorage", "list-migrations");
    expect(text.stdout).toMatch(
      /^ID +STATE +START TIME +END TIME +FROM +TO +MIGRATED COUNT +TOTAL TO MIGRATE +LAST UPDATED/,
    );
    expect(text.stdout).toMatch(/^ +2 +complete .* localfs +db +8 +8 /m);
  });

  it("from one store to two, and from two to one in two runs", async () => {
    const installation = await Installation.of("database.yaml");
    // Nothing is archived: without a bucket there is nothing to move, and the working set stays where it is.
    const none = await installation.migrate("database.yaml", "split.yaml", "--to-analysis-archive", "-y");
    expect(none.code).toBe(0);
    expect(none.stdout).toContain("nothing to move");
    const named = ["--to-analysis-archive", "--bucket", "layer_data"];
    expect((await installation.migrate("database.yaml", "split.yaml", ...named, "-y")).code).toBe(0);
    expect((await blobsIn("archive")).length).toBe(4);
    expect(await blobsIn("files")).toEqual([]);
    expect((await installation.migrate("database.yaml", "split.yaml", "-y")).code).toBe(0);
    expect((await blobsIn("files")).length).toBe(4);
    await installation.expectWhole("split.yaml");

    expect((await installation.migrate("split.yaml", "other.yaml", "-y")).code).toBe(0);
    expect([(await blobsIn("files")).length, (await blobsIn("archive")).length]).toEqual([0, 4]);
    expect((await installation.migrate("split.yaml", "other.yaml", "--from-analysis-archive", "-y")).code).toBe(0);
    expect((await blobsIn("archive")).length).toBe(0);
    expect((await blobsIn("other")).length).toBe(8);
    await installation.expectWhole("other.yaml");
  });

  it("to another place of the same driver, the sources kept", async () => {
    const installation = await Installation.of("files.yaml");
    const { code, events } = await installation.events(
      "files.yaml",
      "other.yaml",
      "--nodelete",
      "--verify",
      "checksum",
    );
    expect(code).toBe(0);
    expect(events.at(-1)).toMatchObject({ archive_documents_migrated: 8 });
    expect([(await blobsIn("files")).length, (await blobsIn("other")).length]).toEqual([8, 8]);
    await rm(path("files"), { recursive: true });
    await installation.expectWhole("other.yaml");
  });

  it("online, while another process reads and writes", async () => {
    const installation = await Installation.of("files.yaml");
    const other = await installation.scrubSlowly("both.yaml");
    // Sources stay for readers: that takes longer than a test, so they are kept.
    const { code, events } = await installation.events("files.yaml", "other.yaml", "--online", "--nodelete");
    expect(await other.interrupt()).toBe(130);
    expect(code).toBe(0);
    expect(events.at(-1)).toMatchObject({ online_migration: true, archive_documents_migrated: 8 });
    await installation.expectWhole("other.yaml");
  });

  it("online is refused while a process does not know both stores", async () => {
    const installation = await Installation.of("files.yaml");
    const other = await installation.scrubSlowly("files.yaml");
    const { code, stderr } = await installation.migrate("files.yaml", "other.yaml", "--online", "-y");
    expect(await other.interrupt()).toBe(130);
    expect(code).toBe(1);
    expect(stderr).toContain("MIGRATION_STORE_IN_USE");
    expect(stderr).toContain(`stowage objectstorage scrub ${other.pid}@`);
    expect(stderr).toContain("other_object_stores");
    // What was refused has left nothing that would be gone on with.
    expect(await installation.list()).toEqual([]);
  });

  it("only what was stored in a time, or by an account", async () => {
    const planned = async (...narrowed: readonly string[]) => {
      const { events } = await still.events("database.yaml", "still.yaml", "--dry-run", ...narrowed);
      return events[0].objects;
    };
    expect(await planned("--until", "2020-01-01")).toBe(0);
    expect(await planned("--since", "2020-01-01T00:00:00+02:00")).toBe(8);
    expect(await planned("--account", "admin")).toBe(4);
    expect(await planned("--bucket", "manifest_data", "--bucket", "analysis_data")).toBe(4);
  });
});

describe("before anything is moved", () => {
  it("asks, and moves nothing without a yes", async () => {
    const { code, stdout, stderr } = await still.migrate("database.yaml", "still.yaml");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Skipping conversion[.]$/m);
    expect(stderr).toContain("to be stopped - proceed? (y/N)");
    expect(await still.list()).toEqual([]);
    await still.expectWhole("database.yaml");
  });

  it("--dry-run tries the stores and says how long it would take", async () => {
    const { code, events } = await still.events("database.yaml", "still.yaml", "--dry-run");
    expect(code).toBe(0);
    expect(events.at(-1)).toMatchObject({ event: "estimate", objects: 8, seconds: expect.any(Number) });
    expect(events.at(-1).space[0].freeBytes).toBeGreaterThan(0);
    expect(new Set(events.filter(({ event }) => event === "check").map(({ outcome }) => outcome))).toEqual(
      new Set(["ok"]),
    );
    expect(await blobsIn("still")).toEqual([]);
    expect(await still.list()).toEqual([]);
    // The place is nobody's still: another installation can have it.
    const checked = await stowage(["objectstorage", "check", path("still.yaml"), "--data-dir", path("data-unused")]);
    expect(checked).toMatchObject({ code: 0, stdout: expect.stringContaining("nobody's yet") });
    const text = await still.migrate("database.yaml", "still.yaml", "--dry-run");
    expect(text.stdout).toMatch(/^8 objects, \d+ kB: about \d+ s; nothing was moved$/m);
  });

  it.each([
    [["--concurrency", "0"], "--concurrency"],
    [["--concurrency", "many"], "--concurrency"],
    [["--max-rate", "fast"], "--max-rate"],
    [["--since", "yesterday"], "--since"],
    [["--until", "2026-02-30"], "--until"],
    [["--since", "2026-02-02", "--until", "2026-02-01"], "--since"],
    [["--verify", "never"], "--verify"],
    [["–nodelete"], "write --nodelete"],
    [["—bucket", "layer_data"], "write --bucket"],
    [["--from-analysis-archive"], "analysis_archive"],
    [["--config", "/third.yaml"], "three configuration files"],
  ])("%j is a usage error that says why", async (options, said) => {
    const { code, stderr } = await stowage([
      ...["objectstorage", "migrate", path("database.yaml"), path("files.yaml"), ...options],
      ...["--data-dir", path("data-unused")],
    ]);
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining(said) });
  });

  it("refuses files that name different databases, without their passwords", async () => {
    const credentials = (name: string) =>
      `credentials: {database: {db_connect: "postgresql://u:not-to-be-seen@db.invalid:5432/${name}"}}\n`;
    await writeFile(path("one.yaml"), credentials("one"));
    await writeFile(path("two.yaml"), credentials("two"));
    const different = await stowage(["objectstorage", "migrate", path("one.yaml"), path("two.yaml"), "-y"]);
    expect(different.code).toBe(2);
    expect(different.stderr).toMatch(/db[.]invalid:5432\/one, and \S+two[.]yaml names \S+db[.]invalid:5432\/two/);
    const option = ["--db-connect", "postgresql://u@db.invalid/three"];
    const other = await stowage(["objectstorage", ...option, "migrate", path("one.yaml"), path("one.yaml"), "-y"]);
    expect(other.code).toBe(2);
    expect(other.stderr).toContain("--db-connect names");
    // The same one under another user: it is tried.
    const same = ["--db-connect", "postgresql://other@db.invalid/one"];
    const tried = await stowage(["objectstorage", ...same, "migrate", path("one.yaml"), path("one.yaml"), "-y"]);
    expect(tried.code).toBe(3);
    expect(different.stderr + other.stderr + tried.stderr).not.toContain("not-to-be-seen");
  });
});

describe("the configuration to put in place", () => {
  it("is shown without secrets, or written with the file's own text", async () => {
    const installation = await Installation.of("database.yaml");
    const other =
      "{storage_driver: {name: s3, config: {bucket: bucket, url: 'http://127.0.0.1:1', access_key: k, secret_key: ";
    await configure(
      "secret.yaml",
      `object_store: ${files("files")}`,
      `other_object_stores: [${other}\${SECRET}}}}, ${other.replace("bucket:", "prefix: p, bucket:")}not-to-be-seen}}}]`,
    );
    const options = { env: { SECRET: "of-the-variable" } };
    const line = [
      "objectstorage",
      "migrate",
      path("database.yaml"),
      path("secret.yaml"),
      "-y",
      ...installation.options,
    ];
    const { code, stdout, stderr } = await stowage([...line, "--write-config", path("new.yaml")], options);
    expect(code).toBe(0);
    expect(stdout).toContain(path("new.yaml"));
    const shown = await stowage(line, options);
    expect(shown.code).toBe(0);
    expect(shown.stdout).toContain(`secret_key: \${SECRET}`);
    expect(shown.stdout).toMatch(/secret_key: "?[*]{8}/);
    for (const text of [stdout, stderr, shown.stdout, shown.stderr]) {
      expect(text).not.toMatch(/not-to-be-seen|of-the-variable/);
    }
    const written = await readFile(path("new.yaml"), "utf8");
    expect(written).toContain(`secret_key: \${SECRET}`);
    expect(written).toContain("secret_key: not-to-be-seen");
    expect(written).not.toContain("of-the-variable");
    expect((await stat(path("new.yaml"))).mode & 0o777).toBe(0o600);
    const validated = await stowage(["config", "validate", path("new.yaml")], options);
    expect(validated).toMatchObject({ code: 0, stderr: "" });
    const again = await stowage([...line, "--write-config", path("new.yaml")], options);
    expect(again.code).toBe(2);
    expect(await readFile(path("new.yaml"), "utf8")).toBe(written);
  });

  it("is warned of when something stays at a place that it does not name", async () => {
    const installation = await Installation.of("database.yaml");
    expect((await installation.migrate("database.yaml", "files.yaml", "-y")).code).toBe(0);
    const { code, events, stderr } = await installation.events("files.yaml", "other.yaml", "--bucket", "layer_data");
    expect(code).toBe(0);
    const { left } = events.find(({ event }) => event === "configuration");
    expect(left).toMatchObject([{ place: `localfs archive_data_dir=${path("files")}`, objects: 4 }]);
    expect(stderr).toContain("other_object_stores");
  });
});

describe("interrupted", () => {
  it("stops cleanly, too, when its terminal is closed", async () => {
    const installation = await Installation.of("database.yaml");
    const { child, result } = await startSlowly(installation, "database.yaml", "files.yaml");
    child.kill("SIGHUP");
    expect(await result).toMatchObject({ code: 130, stderr: expect.stringContaining("migration resume 1") });
    expect((await installation.list())[0].state).toBe("incomplete");
  });

  it("stops cleanly and says how to go on; the same command goes on", async () => {
    const installation = await Installation.of("database.yaml");
    const { child, result } = await startSlowly(installation, "database.yaml", "files.yaml");
    child.kill("SIGINT");
    const { code, stdout, stderr } = await result;
    expect(code).toBe(130);
    expect(stderr).toContain("go on with: stowage objectstorage migration resume 1");
    expect(eventsIn(stdout).at(-1)).toMatchObject({ event: "summary", id: 1, state: "incomplete" });
    expect((await installation.list())[0].state).toBe("incomplete");
    const next = await installation.migrate("database.yaml", "files.yaml", "-y");
    expect(next.code).toBe(0);
    expect(next.stdout).toMatch(/^going on with migration 1 of .* of 8 objects done$/m);
    expect(await installation.list()).toMatchObject([{ id: 1, state: "complete", archive_documents_migrated: 8 }]);
    expect(await blobsIn("files")).toHaveLength(8);
    await installation.expectWhole("files.yaml");
  });

  it("killed: it is shown as what it is, resumed by its number, and what came since is moved by the same command", async () => {
    const installation = await Installation.of("database.yaml");
    const { child, result } = await startSlowly(installation, "database.yaml", "files.yaml");
    const busy = await installation.run("objectstorage", "migration", "cancel", "1");
    expect(busy.code).toBe(1);
    expect(busy.stderr).toContain("MIGRATION_BUSY");
    expect((await installation.list())[0].state).toBe("running");
    // Who comes meanwhile is told so, and not kept waiting for ever.
    const refused = await installation.run("image", "list", "--config", path("database.yaml"));
    expect(refused.code).toBe(3);
    expect(refused.stderr).toMatch(/MIGRATION_RUNNING/);
    expect(refused.stderr).toMatch(/by stowage migrate \d+@/);
    child.kill("SIGKILL");
    expect((await result).signal).toBe("SIGKILL");
    expect((await installation.list())[0].state).toBe("interrupted");
    for (const given of [
      ["files", "database"],
      ["database", "other"],
      ["other", "files"],
    ]) {
      const swapped = given.map((name) => path(`${name}.yaml`));
      const refused = await installation.run("objectstorage", "migration", "resume", "1", ...swapped, "-y");
      expect(refused).toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining("of migration 1") });
    }
    for (const option of [["--online"], ["--verify", "checksum"]]) {
      const otherwise = await installation.migrate("database.yaml", "files.yaml", "-y", ...option);
      expect(otherwise).toMatchObject({ code: 1, stderr: expect.stringContaining("MIGRATION_DIFFERS") });
    }
    expect((await installation.list())[0].state).toBe("interrupted");
    const resumed = await installation.run("objectstorage", "migration", "resume", "1", "-y", "-o", "json");
    expect(resumed.code).toBe(0);
    expect(eventsIn(resumed.stdout)[0]).toMatchObject({ event: "started", id: 1, isResumed: true });
    await installation.expectWhole("files.yaml");
    const shown = await installation.run("objectstorage", "migration", "show", "1");
    expect(shown.stdout).toMatch(/^verify +readback$/m);
    const swapped = [path("files.yaml"), path("database.yaml")];
    expect((await installation.run("objectstorage", "migration", "resume", "1", ...swapped)).code).toBe(2);
    const again = await installation.run("objectstorage", "migration", "resume", "1");
    expect(again).toMatchObject({ code: 0, stdout: expect.stringMatching(/^state +complete$/m) });
  });

  it("cancelled: everything can be read with a configuration that names both", async () => {
    const installation = await Installation.of("database.yaml");
    const { child, result } = await startSlowly(installation, "database.yaml", "files.yaml");
    child.kill("SIGINT");
    await result;
    const cancelled = await installation.run("objectstorage", "migration", "cancel", "1", "-o", "json");
    expect(cancelled.code).toBe(0);
    expect(documentOf("objectstorage-migration-cancel", cancelled.stdout).migration.state).toBe("cancelled");
    expect((await installation.run("objectstorage", "migration", "resume", "1", "-y")).code).toBe(2);
    for (const which of ["1", "2"]) {
      const line = ["image", "content", `example.com/app:${which}`, "files", "--config", path("files.yaml")];
      expect((await installation.run(...line)).code).toBe(0);
    }
    expect((await installation.migrate("database.yaml", "files.yaml", "-y")).code).toBe(0);
    await installation.expectWhole("files.yaml");
  });
});

describe("not everything", () => {
  it("one damaged document stops nothing, is listed with its reason, and is tried again", async () => {
    const installation = await Installation.of("files.yaml");
    const [victim = ""] = await blobsIn("files");
    const whole = await readFile(victim);
    await truncate(victim, whole.length - 1);
    const { code, events, stderr } = await installation.events("files.yaml", "database.yaml");
    expect(code).toBe(1);
    expect(documentOf("error", stderr.trim().split("\n").at(-1) ?? "").error).toMatchObject({
      code: "MIGRATION_INCOMPLETE",
      details: { migration: 1, left: 1, failed: 1 },
    });
    expect(events.at(-1)).toMatchObject({ state: "incomplete", archive_documents_migrated: 7, failed: 1 });
    expect(events.at(-2)).toMatchObject({ event: "failure", code: "OBJECT_DIGEST_MISMATCH" });
    const shown = await installation.run("objectstorage", "migration", "show", "1", "-o", "json");
    const { failures } = documentOf("objectstorage-migration-show", shown.stdout);
    expect(failures).toMatchObject([{ code: "OBJECT_DIGEST_MISMATCH", state: "planned" }]);
    const text = await installation.run("objectstorage", "migration", "show", "1");
    expect(text.stdout).toContain(failures[0].key);
    await writeFile(victim, whole);
    const again = await installation.run("objectstorage", "migration", "resume", "1", "-y");
    expect(again.code).toBe(0);
    expect(again.stderr).toContain("7 of 8 objects done");
    await installation.expectWhole("database.yaml");
  });

  it("while another process has the store open, it is refused and names the process", async () => {
    const installation = await Installation.of("files.yaml");
    const other = await installation.scrubSlowly("files.yaml");
    const { code, stderr } = await installation.migrate("files.yaml", "database.yaml", "-y");
    expect(await other.interrupt()).toBe(130);
    expect(code).toBe(1);
    expect(stderr).toContain("MIGRATION_STORE_IN_USE");
    expect(stderr).toContain(`in use by: stowage objectstorage scrub ${other.pid}@`);
    expect(await installation.list()).toEqual([]);
  });

  it("no such migration", async () => {
    for (const command of ["show", "resume", "cancel"]) {
      const { code, stderr } = await still.run("objectstorage", "migration", command, "7");
      expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining("MIGRATION_NOT_FOUND") });
      expect((await still.run("objectstorage", "migration", command, "last")).code).toBe(2);
    }
  });
});

async function truncate(file: string, length: number): Promise<void> {
  await using handle = await open(file, "r+");
  await handle.truncate(length);
}
