import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { describe, expect, test } from "vitest";
import type { FileCalls, OpenFile } from "../../src/objects/drivers/localfs/file-calls.ts";
import { openLocalFiles } from "../../src/objects/drivers/localfs/local-files-driver.ts";
import { guard } from "../../src/objects/guarded-driver.ts";
import type { BodySource, ObjectDriver, PhysicalKey } from "../../src/objects/index.ts";
import { createCall, defaultRetryPolicy } from "../../src/runtime/index.ts";
import { failureOf } from "../conformance/failure.ts";
import { FaultyFiles, type FileFault, type RecordedCall } from "./faulty-files.ts";
import { ManualClock } from "./manual-clock.ts";
import { createRandom } from "./random.ts";

const call = createCall();
const root = "/volume";
const options = { root, fileMode: 0o640, directoryMode: 0o750, group: 7 };
// Several batches.
const bytes = createRandom(9).bytes(1_300_000);
const key = "c".repeat(32) as PhysicalKey;
const path = `${root}/cc/${key}.blob`;

function body(): BodySource {
  const open = async () =>
    Readable.from(
      (function* () {
        for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536);
      })(),
    );
  return { open, sizeBytes: bytes.length };
}

async function opened(): Promise<{ files: FaultyFiles; driver: ObjectDriver }> {
  const files = new FaultyFiles();
  return { files, driver: await openLocalFiles(options, call, files) };
}

/** How many calls a put makes, and which. */
async function callsOfPut(): Promise<readonly RecordedCall[]> {
  const { files, driver } = await opened();
  const before = files.calls.length;
  await driver.put(key, body(), call);
  return files.calls.slice(before);
}

/** The fault for the n-th call from now on, once. */
function failAt(files: FaultyFiles, step: number, fault: FileFault): void {
  const start = files.calls.length;
  files.fault = (_, nth) => (nth === start + step ? fault : undefined);
}

const read = async (driver: ObjectDriver) => await buffer(await driver.get(key, undefined, call));

describe("a call of the file system fails during a put", () => {
  test.each([
    ["ENOSPC", "BACKEND_FULL"],
    ["EDQUOT", "BACKEND_FULL"],
    ["EIO", "BACKEND_FAILED"],
    ["EACCES", "BACKEND_DENIED"],
    ["EROFS", "BACKEND_DENIED"],
    ["ESTALE", "BACKEND_UNREACHABLE"],
  ])("%s, at each of them: %s, nothing is left, the key is free", async (errno, code) => {
    const steps = await callsOfPut();
    expect(steps.length).toBeGreaterThan(15);
    for (const [index, step] of steps.entries()) {
      const { files, driver } = await opened();
      failAt(files, index + 1, { kind: "fail", code: errno });
      const error = await failureOf(driver.put(key, body(), call));
      expect(`${step.name}: ${error.code}`).toBe(`${step.name}: ${code}`);
      expect(error.details).toMatchObject({ driver: "localfs", operation: "put" });
      expect(`${step.name} leaves ${files.files()}`).toBe(`${step.name} leaves `);
      await driver.put(key, body(), call);
      expect((await read(driver)).equals(bytes)).toBe(true);
    }
  });

  test.each(["before", "after"] as const)(
    "the guard's second attempt stores it, whole and durable: %s the effect",
    async (when) => {
      const steps = await callsOfPut();
      for (const index of steps.keys()) {
        const { files, driver } = await opened();
        const clock = new ManualClock();
        const guarded = guard(driver, { retry: { ...defaultRetryPolicy, clock } });
        failAt(files, index + 1, { kind: "fail", code: "EIO", when });
        const blob = await clock.runUntil(guarded.put(key, body(), call));
        expect(blob.sizeBytes).toBe(bytes.length);
        // The first step looks for the fan-out directory, which is not there: that is its failure already.
        expect(guarded.metrics.of.put.retries).toBe(index === 0 && when === "after" ? 0 : 1);
        const rebooted = await openLocalFiles(options, call, files.reboot({ content: "lost", names: "lost" }));
        expect((await read(rebooted)).equals(bytes)).toBe(true);
        await driver.purge(key, undefined, call);
        expect(files.files()).toEqual([]);
      }
    },
  );

  test("a disk that fills up while it is written: the reason is the system's, the part is gone", async () => {
    const { files, driver } = await opened();
    let writes = 0;
    files.fault = ({ name }) => {
      if (name !== "write") return undefined;
      return ++writes === 1 ? { kind: "short", bytes: 100_000 } : { kind: "fail", code: "ENOSPC" };
    };
    const error = await failureOf(driver.put(key, body(), call));
    expect(error).toMatchObject({ code: "BACKEND_FULL", details: { key } });
    expect(error.hint).toContain(`${root}/cc`);
    expect(files.files()).toEqual([]);
  });

  test("a denial names the place and what is missing", async () => {
    const { files, driver } = await opened();
    files.fault = ({ name }) => (name === "mkdir" ? { kind: "fail", code: "EACCES" } : undefined);
    expect((await failureOf(driver.put(key, body(), call))).details).toMatchObject({
      resource: root,
      permission: "write and search the directory",
    });
    files.fault = () => undefined;
    await driver.put(key, body(), call);
    files.fault = ({ name }) => (name === "open" ? { kind: "fail", code: "EACCES" } : undefined);
    expect((await failureOf(driver.get(key, undefined, call))).details).toMatchObject({
      resource: path,
      permission: "read",
    });
  });

  test("what can't be taken back, purge finds", async () => {
    const { files, driver } = await opened();
    files.fault = ({ name, path: at }) =>
      name === "unlink" || (name === "sync" && at === `${root}/cc`) ? { kind: "fail", code: "EIO" } : undefined;
    expect((await failureOf(driver.put(key, body(), call))).code).toBe("BACKEND_FAILED");
    expect(files.files()).toHaveLength(2);
    files.fault = () => undefined;
    await driver.purge(key, undefined, call);
    expect(files.files()).toEqual([]);
  });
});

describe("file systems of their own kind", () => {
  test("one that repeats a link whose answer was lost", async () => {
    const { files, driver } = await opened();
    files.fault = ({ name }) => (name === "link" ? { kind: "fail", code: "EEXIST", when: "after" } : undefined);
    await driver.put(key, body(), call);
    expect((await read(driver)).equals(bytes)).toBe(true);
  });

  test("one without hard links: names are looked at, not claimed, and the driver says so", async () => {
    const { files, driver } = await opened();
    files.fault = ({ name }) => (name === "link" ? { kind: "fail", code: "EPERM" } : undefined);
    expect((await driver.capabilities(call)).exclusivePut).toBe(false);
    await driver.put(key, body(), call);
    expect(files.files()).toEqual([path]);
    expect((await failureOf(driver.put(key, body(), call))).code).toBe("BACKEND_KEY_EXISTS");
    expect(files.files()).toEqual([path]);
  });

  test("one where nothing can be written: nothing is promised, and it is asked again later", async () => {
    const { files, driver } = await opened();
    files.fault = ({ name }) => (name === "open" ? { kind: "fail", code: "EROFS" } : undefined);
    expect((await driver.capabilities(call)).exclusivePut).toBe(false);
    files.fault = () => undefined;
    expect((await driver.capabilities(call)).exclusivePut).toBe(true);
    expect(files.files()).toEqual([]);
  });

  test("one that knows no fsync of directories", async () => {
    const { files, driver } = await opened();
    files.fault = ({ name, path: at }) =>
      name === "sync" && !at.endsWith(".part") ? { kind: "fail", code: "EINVAL" } : undefined;
    await driver.put(key, body(), call);
    expect((await read(driver)).equals(bytes)).toBe(true);
  });
});

describe("a call of the file system fails during a get", () => {
  test("short reads are read on", async () => {
    const { files, driver } = await opened();
    await driver.put(key, body(), call);
    files.fault = ({ name }) => (name === "read" ? { kind: "short", bytes: 100_003 } : undefined);
    expect((await read(driver)).equals(bytes)).toBe(true);
    expect(await buffer(await driver.get(key, { first: 5, last: 600_000 }, call))).toEqual(bytes.subarray(5, 600_001));
  });

  test("a file that has become shorter fails: no quiet end", async () => {
    const { files, driver } = await opened();
    await driver.put(key, body(), call);
    const stream = await driver.get(key, undefined, call);
    files.truncate(path, 600_000);
    const error = await failureOf(buffer(stream));
    expect(error).toMatchObject({ code: "BACKEND_FAILED", details: { key, operation: "get" } });
    expect(error.message).toContain("600000 of 1300000");
  });

  test("a file of one read: what comes in parts, what has become shorter, EIO; it is closed each time", async () => {
    const { files, driver } = await opened();
    const short = bytes.subarray(0, 20_000);
    await driver.put(key, { open: async () => Readable.from([short]), bytes: short }, call);
    files.fault = ({ name }) => (name === "read" ? { kind: "short", bytes: 7001 } : undefined);
    expect(await read(driver)).toEqual(short);
    expect(await buffer(await driver.get(key, { first: 5, last: 16_000 }, call))).toEqual(short.subarray(5, 16_001));
    expect(files.calls.at(-1)?.name).toBe("close");
    files.fault = ({ name }) => (name === "read" ? { kind: "fail", code: "EIO" } : undefined);
    expect(await failureOf(driver.get(key, undefined, call))).toMatchObject({
      code: "BACKEND_FAILED",
      details: { key, operation: "get" },
    });
    expect(files.calls.at(-1)?.name).toBe("close");
    files.fault = ({ name }) => {
      if (name === "read") files.truncate(path, 600);
      return undefined;
    };
    expect((await failureOf(driver.get(key, undefined, call))).message).toContain("600 of 20000");
    expect(files.calls.at(-1)?.name).toBe("close");
  });

  test("whoever leaves while a read is under way: the file is closed after it, for its number may become another's", async () => {
    const { files } = await opened();
    const [begun, ended] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const slow: FileCalls = new Proxy(files, {
      get(target, property) {
        if (property === "open") {
          return async (...parameters: Parameters<FileCalls["open"]>): Promise<OpenFile> => {
            const file = await target.open(...parameters);
            const wait = async (into: Buffer, position: number) => {
              begun.resolve();
              await ended.promise;
              return await file.read(into, position);
            };
            return { ...file, read: wait };
          };
        }
        const value: unknown = Reflect.get(target, property, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    const driver = await openLocalFiles(options, call, slow);
    await driver.put(key, body(), call);
    const before = files.calls.length;
    const stream = await driver.get(key, undefined, call);
    const closed = new Promise((resolve) => stream.once("close", resolve));
    stream.read();
    await begun.promise;
    stream.destroy();
    ended.resolve();
    await closed;
    expect(files.calls.slice(before).map(({ name }) => name)).toEqual(["open", "fileStatus", "read", "close"]);
  });

  test("EIO midway; the file is closed", async () => {
    const { files, driver } = await opened();
    await driver.put(key, body(), call);
    let reads = 0;
    files.fault = ({ name }) => (name === "read" && ++reads === 2 ? { kind: "fail", code: "EIO" } : undefined);
    const before = files.calls.length;
    expect((await failureOf(buffer(await driver.get(key, undefined, call)))).code).toBe("BACKEND_FAILED");
    expect(files.calls.slice(before).at(-1)?.name).toBe("close");
    // Through the guard it goes on where it was.
    reads = 0;
    const clock = new ManualClock();
    const guarded = guard(driver, { retry: { ...defaultRetryPolicy, clock } });
    const whole = await clock.runUntil(guarded.get(key, undefined, call).then(buffer));
    expect(whole.equals(bytes)).toBe(true);
  });
});
