import { execFileSync } from "node:child_process";
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { failureOf } from "../../../../test/conformance/failure.ts";
import { createCall } from "../../../runtime/index.ts";
import type { BodySource, DriverSurroundings, ObjectDriver, PhysicalKey } from "../../driver.ts";
import { createPhysicalKey } from "../../physical-key.ts";
import { realFileCalls, realFileCallsIn } from "./file-calls.ts";
import { localfsDriver } from "./index.ts";
import { openLocalFiles } from "./local-files-driver.ts";

const call = createCall();
const key = "ab".repeat(16) as PhysicalKey;
const blob = join("ab", `${key}.blob`);
let parent: string;
let root: string;

beforeEach(async () => {
  parent = await mkdtemp(join(tmpdir(), "stowage-localfs-"));
  await chmod(parent, 0o755);
  root = join(parent, "root");
});
afterEach(() => rm(parent, { recursive: true, force: true }));

/** As a configuration opens it. */
function open(section: Record<string, unknown> = {}): Promise<ObjectDriver> {
  const config = localfsDriver.schema.parse({ archive_data_dir: root, ...section });
  return localfsDriver.open(config, {} as DriverSurroundings, call);
}

function body(content = "content"): BodySource {
  return { open: async () => Readable.from([Buffer.from(content)]) };
}

async function keys(driver: ObjectDriver): Promise<string[]> {
  const listed: string[] = [];
  for await (const { key: name } of driver.list(undefined, call)) listed.push(name);
  return listed;
}

/** Runs as a user who is not root, who may do anything. */
async function unprivileged<T>(work: () => Promise<T>): Promise<T> {
  if (process.geteuid?.() !== 0) return await work();
  process.seteuid?.(65_534);
  try {
    return await work();
  } finally {
    process.seteuid?.(0);
  }
}

test("its place tells how much it takes", async () => {
  const config = localfsDriver.schema.parse({ archive_data_dir: root });
  await expect(localfsDriver.freeBytes?.(config)).rejects.toMatchObject({ code: "ENOENT" });
  await using _ = await open();
  expect(await localfsDriver.freeBytes?.(config)).toBeGreaterThan(0);
});

describe("configuration", () => {
  test.each([
    ["a relative directory", { archive_data_dir: "data" }, "must be an absolute path"],
    ["no directory", { archive_data_dir: undefined }, "expected string"],
    ["an unquoted mode", { file_mode: 640 }, "unquoted, YAML reads 0640 as a decimal one"],
    ["a mode that is none", { file_mode: "0980" }, "octal digits"],
    ["files that are programs", { file_mode: "0755" }, "nobody execute"],
    ["files their owner can't read", { file_mode: "0040" }, "owner read and write"],
    ["directories their owner can't search", { directory_mode: "0640" }, "write and search"],
    ["a key that is not known", { directory: "/data" }, "directory"],
  ])("%s is refused", (_, section, reason) => {
    const result = localfsDriver.schema.safeParse({ archive_data_dir: root, ...section });
    expect(result.error?.message).toContain(reason);
  });

  test("the place is all that tells one from another", () => {
    const settingsOf = (section: Record<string, unknown>) =>
      localfsDriver.settingsOf(localfsDriver.schema.parse(section));
    const expected = { archive_data_dir: "/data/archive" };
    expect(settingsOf({ archive_data_dir: "/data/archive" })).toEqual(expected);
    expect(settingsOf({ archive_data_dir: "/data/x/..//archive/", file_mode: "0600" })).toEqual(expected);
    expect(settingsOf({ archive_data_dir: "/" })).toEqual({ archive_data_dir: "/" });
  });

  test("permissions are those that were asked for, whatever the umask", async () => {
    const before = process.umask(0o077);
    try {
      const driver = await open({ file_mode: "0664", directory_mode: "0775" });
      await driver.put(key, body(), call);
    } finally {
      process.umask(before);
    }
    const modeOf = async (path: string) => (await lstat(join(root, path))).mode & 0o7777;
    expect(await modeOf(blob)).toBe(0o664);
    expect(await modeOf("ab")).toBe(0o775);
    expect(await modeOf("")).toBe(0o775);
  });

  test("by default the group may read, others nothing", async () => {
    await (await open()).put(key, body(), call);
    expect((await lstat(join(root, blob))).mode & 0o7777).toBe(0o640);
    expect((await lstat(join(root, "ab"))).mode & 0o7777).toBe(0o750);
  });

  const isRoot = process.geteuid?.() === 0;
  test.skipIf(!isRoot)(
    `a group by number and by name${isRoot ? "" : ": SKIPPED, only root may give files to any group"}`,
    async () => {
      const table = (await readFile("/etc/group", "utf8")).split("\n").map((line) => line.split(":"));
      const [name = "", , number = ""] = table.find(([, , gid]) => Number(gid) > 0) ?? [];
      for (const group of [Number(number), name]) {
        await (await open({ group, directory_mode: "2750" })).put(key, body(), call);
        for (const path of ["", "ab", blob]) expect((await lstat(join(root, path))).gid).toBe(Number(number));
        expect((await lstat(join(root, "ab"))).mode & 0o7777).toBe(0o2750);
        await rm(root, { recursive: true });
      }
    },
  );

  test("a group that is not there", async () => {
    expect(await failureOf(open({ group: "no-such-group-here" }))).toMatchObject({ code: "CONFIG_INVALID" });
  });

  test("a file where the directory should be", async () => {
    await writeFile(root, "");
    expect(await failureOf(open())).toMatchObject({ code: "CONFIG_INVALID" });
    expect((await failureOf(open({ archive_data_dir: join(root, "below") }))).code).toBe("BACKEND_FAILED");
  });
});

describe("calls that are made at once", () => {
  test("never on a file system that may not answer", async () => {
    // None of a disk's: /proc where there is one, and nothing at all elsewhere.
    for (const directory of ["/proc", join(parent, "missing")]) {
      expect(await realFileCallsIn(directory)).toBe(realFileCalls);
    }
  });

  test("there, all is the same", async () => {
    const before = process.umask(0o077);
    try {
      const driver = await openLocalFiles({ root, fileMode: 0o640, directoryMode: 0o750 }, call, realFileCalls);
      const long = "x".repeat(3_000_000);
      for (const content of ["", "content", long]) {
        await driver.put(key, body(content), call);
        expect((await lstat(join(root, blob))).mode & 0o7777).toBe(0o640);
        expect((await buffer(await driver.get(key, undefined, call))).toString()).toBe(content);
        expect((await buffer(await driver.get(key, { first: 2, last: 4 }, call))).toString()).toBe(content.slice(2, 5));
        await driver.delete(key, call);
      }
    } finally {
      process.umask(before);
    }
  });
});

describe("what is not the driver's own", () => {
  test("is neither listed nor touched, in a fresh volume and among blobs", async () => {
    const others = ["lost+found/x", "README", "ab/README", `ab/${key}.blob.bak`, `cd/${key}.blob`, `ab/${key}.json`];
    const names = [...others, `ab/${key}x.0123456789abcdef.part`, `${"0".repeat(32)}.blob`, "ABC/x", "zz/x"];
    for (const name of names) {
      await mkdir(join(root, name, ".."), { recursive: true });
      await writeFile(join(root, name), name);
    }
    const driver = await open();
    await driver.capabilities(call);
    await driver.put(key, body(), call);
    expect(await keys(driver)).toEqual([key]);
    await driver.delete(key, call);
    await driver.purge(key, undefined, call);
    for (const name of names) expect(await readFile(join(root, name), "utf8")).toBe(name);
    expect(await keys(driver)).toEqual([]);
  });

  test("symbolic links are not followed: to a file, and to a directory", async () => {
    const driver = await open();
    const secret = join(parent, "secret");
    await writeFile(secret, "secret");
    await mkdir(join(root, "ab"));
    await symlink(secret, join(root, blob));
    expect(await failureOf(driver.get(key, undefined, call))).toMatchObject({
      code: "BACKEND_DENIED",
      details: { resource: join(root, blob) },
    });
    expect((await failureOf(driver.put(key, body(), call))).code).toBe("BACKEND_KEY_EXISTS");
    expect(await keys(driver)).toEqual([]);
    expect(await readFile(secret, "utf8")).toBe("secret");

    const elsewhere = join(parent, "elsewhere");
    await mkdir(elsewhere);
    await symlink(elsewhere, join(root, "cd"));
    const other = "cd".repeat(16) as PhysicalKey;
    for (const refused of [
      () => driver.put(other, body(), call),
      () => driver.get(other, undefined, call),
      () => driver.delete(other, call),
      () => driver.purge(other, undefined, call),
      () => keys(driver),
    ]) {
      expect((await failureOf(refused())).code).toBe("BACKEND_DENIED");
    }
    expect(await readdir(elsewhere)).toEqual([]);
  });

  test("a directory and a pipe under a blob's name are no blobs", async () => {
    const driver = await open();
    await mkdir(join(root, blob), { recursive: true });
    expect((await failureOf(driver.get(key, undefined, call))).code).toBe("BACKEND_DENIED");
    expect(await keys(driver)).toEqual([]);
    await rm(join(root, blob), { recursive: true });
    execFileSync("mkfifo", [join(root, blob)]);
    // It does not wait for somebody who writes into it.
    expect((await failureOf(driver.get(key, undefined, call))).code).toBe("BACKEND_DENIED");
    expect(await keys(driver)).toEqual([]);
  });
});

describe("things that happen to directories", () => {
  test("what unfinished puts left, purge takes, of its own key only", async () => {
    const driver = await open();
    await driver.put(key, body(), call);
    const neighbour = `ab${"0".repeat(30)}` as PhysicalKey;
    const left = [key, key, neighbour].map((of, index) => `${of}.${String(index).repeat(16)}.part`);
    for (const name of left) await writeFile(join(root, "ab", name), "part");
    expect(await keys(driver)).toEqual([key]);
    await driver.delete(key, call);
    expect(await readdir(join(root, "ab"))).toEqual(expect.arrayContaining(left));
    await driver.purge(key, undefined, call);
    expect(await readdir(join(root, "ab"))).toEqual([left[2]]);
  });

  test("a fan-out directory that somebody removes is made again", async () => {
    const driver = await open();
    await driver.put(key, body(), call);
    await rm(join(root, "ab"), { recursive: true });
    expect((await failureOf(driver.get(key, undefined, call))).code).toBe("BACKEND_KEY_MISSING");
    await driver.delete(key, call);
    await driver.purge(key, undefined, call);
    expect(await keys(driver)).toEqual([]);
    await driver.put(key, body(), call);
    expect(await keys(driver)).toEqual([key]);
  });

  test("without its volume nothing is said to be missing, and nothing is written", async () => {
    const driver = await open();
    await driver.put(key, body(), call);
    await rename(root, join(parent, "away"));
    for (const isMountPointThere of [false, true]) {
      if (isMountPointThere) await mkdir(root);
      for (const refused of [
        () => driver.get(key, undefined, call),
        () => driver.get(createPhysicalKey(), undefined, call),
        () => driver.put(key, body(), call),
        () => driver.put(createPhysicalKey(), body(), call),
        () => keys(driver),
      ]) {
        expect((await failureOf(refused())).code).toBe("BACKEND_UNREACHABLE");
      }
    }
    expect(await readdir(root)).toEqual([]);
    await rm(root, { recursive: true });
    await rename(join(parent, "away"), root);
    expect(await keys(driver)).toEqual([key]);
  });

  test("a file that is cut while it is read", async () => {
    const driver = await open();
    await driver.put(key, body("x".repeat(3_000_000)), call);
    const stream = await driver.get(key, undefined, call);
    await truncate(join(root, blob), 1_000_000);
    expect(await failureOf(buffer(stream))).toMatchObject({ code: "BACKEND_FAILED", details: { key } });
  });
});

describe("without rights", () => {
  test("a directory that can't be written: reads work, a put names the directory", async () => {
    const driver = await open({ file_mode: "0644", directory_mode: "0755" });
    await driver.put(key, body(), call);
    for (const path of [root, join(root, "ab")]) await chmod(path, 0o555);
    try {
      await unprivileged(async () => {
        const again = await open();
        expect((await buffer(await again.get(key, undefined, call))).toString()).toBe("content");
        expect((await again.capabilities(call)).exclusivePut).toBe(false);
        const inNew = await failureOf(again.put("cd".repeat(16) as PhysicalKey, body(), call));
        expect(inNew).toMatchObject({
          code: "BACKEND_DENIED",
          details: { operation: "put", resource: root, permission: "write and search the directory" },
        });
        expect(inNew.hint).toContain(root);
        for (const work of [
          () => again.put(key, body(), call),
          () => again.delete(key, call),
          () => again.purge(key, undefined, call),
        ]) {
          expect(await failureOf(work())).toMatchObject({
            code: "BACKEND_DENIED",
            details: { resource: join(root, "ab") },
          });
        }
        await expect(failureOf(open({ archive_data_dir: join(root, "new") }))).resolves.toMatchObject({
          code: "BACKEND_DENIED",
          details: { operation: "open", resource: root },
        });
      });
    } finally {
      for (const path of [root, join(root, "ab")]) await chmod(path, 0o755);
    }
  });

  test("a file that can't be read", async () => {
    const driver = await open({ directory_mode: "0755" });
    await driver.put(key, body(), call);
    await chmod(join(root, blob), 0o000);
    await unprivileged(async () => {
      const error = await failureOf((await open()).get(key, undefined, call));
      expect(error).toMatchObject({
        code: "BACKEND_DENIED",
        details: { permission: "read", resource: join(root, blob) },
      });
    });
  });
});

const canMount = mounts();
test.skipIf(!canMount)(
  `a full file system${canMount ? "" : ": SKIPPED, a tmpfs can't be mounted here (that needs root)"}`,
  async () => {
    await mkdir(root);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m,nr_inodes=40", "tmpfs", root]);
    try {
      const driver = await open();
      await driver.put(key, body("first"), call);
      const large = { open: async () => Readable.from(Array.from({ length: 50 }, () => Buffer.alloc(100_000, 1))) };
      const error = await failureOf(driver.put("ac".repeat(16) as PhysicalKey, large, call));
      expect(error).toMatchObject({ code: "BACKEND_FULL", details: { operation: "put" } });
      expect(await keys(driver)).toEqual([key]);
      expect(await readdir(join(root, "ac"))).toEqual([]);
      expect((await buffer(await driver.get(key, undefined, call))).toString()).toBe("first");
      // Space came back with the part: a smaller one fits. Without inodes, nothing does.
      await driver.put("ac".repeat(16) as PhysicalKey, body("x".repeat(500_000)), call);
      const filling = async () => {
        for (;;) await driver.put(createPhysicalKey(), body(""), call);
      };
      expect((await failureOf(filling())).code).toBe("BACKEND_FULL");
      // On a full one, deleting works.
      for (const listed of await keys(driver)) await driver.purge(listed as PhysicalKey, undefined, call);
      expect(await keys(driver)).toEqual([]);
    } finally {
      execFileSync("umount", [root]);
    }
  },
);

function mounts(): boolean {
  try {
    execFileSync("unshare", ["--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
