import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { describe, expect, test } from "vitest";
import type { FileCalls } from "../../src/objects/drivers/localfs/file-calls.ts";
import { openLocalFiles } from "../../src/objects/drivers/localfs/local-files-driver.ts";
import type { BodySource, ObjectDriver, PhysicalKey } from "../../src/objects/index.ts";
import { createCall } from "../../src/runtime/index.ts";
import { failureOf } from "../conformance/failure.ts";
import { type CrashChoice, FaultyFiles, type FileFault, type RecordedCall, syncedAfterLink } from "./faulty-files.ts";
import { createRandom } from "./random.ts";

const call = createCall();
const root = "/volume/made/as-needed";
const options = { root, fileMode: 0o640, directoryMode: 0o750 };
const bytes = createRandom(7).bytes(20_000);
const [one, two, three] = ["4f0", "4f1", "a00"].map((start) => start.padEnd(32, "0")) as [
  PhysicalKey,
  PhysicalKey,
  PhysicalKey,
];

const choices: readonly CrashChoice[] = (["lost", "kept", "torn", "zeros"] as const).flatMap((content) =>
  ["lost" as const, "kept" as const, ...[1, 2, 3, 4, 5, 6].map((seed) => ({ seed }))].map((names) => ({
    content,
    names,
  })),
);

function body(content = bytes): BodySource {
  const open = async () =>
    Readable.from(
      (function* () {
        for (let at = 0; at < content.length; at += 65_536) yield content.subarray(at, at + 65_536);
      })(),
    );
  return { open, sizeBytes: content.length };
}

/** What a history may say of each key, once the power is back. */
type Expectation = Map<PhysicalKey, "whole" | "missing" | "whole or missing">;

/** Runs a history until the power goes, and says what of it has to hold. */
type History = (driver: ObjectDriver, expected: Expectation) => Promise<void>;

const putTwoDeleteOne: History = async (driver, expected) => {
  for (const key of [one, two, three]) {
    expected.set(key, "whole or missing");
    await driver.put(key, body(), call);
    expected.set(key, "whole");
  }
  expected.set(one, "whole or missing");
  await driver.delete(one, call);
  expected.set(one, "missing");
};

interface Trial {
  /** The file calls that the driver sees, of those that the disk does. */
  readonly variant?: (files: FaultyFiles) => FileCalls;
  /** Beside the power loss; made anew for each. */
  readonly fault?: () => (made: RecordedCall) => FileFault | undefined;
  readonly history?: History;
}

/** The power goes at each step, and each time the disk has made something else of what was not fsynced. Returns what does not hold. */
async function crashEverywhere({ variant, fault, history }: Trial): Promise<{ violations: string[]; steps: number }> {
  const violations: string[] = [];
  // Most of what a disk may make of a step it may make of the next one too.
  const verdicts = new Map<string, readonly string[]>();
  for (let step = 1; ; step++) {
    const files = new FaultyFiles();
    const faultOf = fault?.();
    files.fault = (made, nth) => (nth === step ? { kind: "crash" } : faultOf?.(made));
    const expected: Expectation = new Map();
    let isDone = false;
    try {
      const driver = await openLocalFiles(options, call, variant?.(files) ?? files);
      await (history ?? putTwoDeleteOne)(driver, expected);
      isDone = files.calls.length < step; // a history may go on after a failure
    } catch (error) {
      if (files.calls.length < step) throw error;
    }
    for (const choice of choices) {
      const rebooted = files.reboot(choice);
      const state = `${rebooted.fingerprint()} ${JSON.stringify([...expected])}`.replaceAll(
        /[.][0-9a-f]{16}[.]part/g,
        "",
      );
      const found = verdicts.get(state) ?? (await violationsOf(rebooted, expected));
      verdicts.set(state, found);
      violations.push(...found.map((violation) => `step ${step}, ${JSON.stringify(choice)}: ${violation}`));
    }
    if (isDone) return { violations, steps: step };
  }
}

async function violationsOf(files: FaultyFiles, expected: Expectation): Promise<string[]> {
  const violations: string[] = [];
  const driver = await openLocalFiles(options, call, files);
  const listed = new Map<string, number>();
  for await (const { key, sizeBytes } of driver.list(undefined, call)) listed.set(key, sizeBytes);
  for (const [key, state] of expected) {
    const found = await driver.get(key, undefined, call).then(buffer, (error: unknown) => String(error));
    const isWhole = Buffer.isBuffer(found) && found.equals(bytes);
    const isMissing = !Buffer.isBuffer(found) && found.includes("bytes are missing at the backend");
    if (!isWhole && !isMissing) violations.push(`${key} is neither whole nor missing`);
    if (state === "whole" && !isWhole) violations.push(`${key} was acknowledged and is lost`);
    if (state === "missing" && !isMissing) violations.push(`${key} was deleted and is back`);
    if (isMissing === listed.has(key)) violations.push(`${key} is listed wrongly`);
    if (isWhole && listed.get(key) !== bytes.length) violations.push(`${key} is listed with a wrong size`);
    await driver.purge(key, undefined, call);
    if (isMissing) {
      await driver.put(key, body(Buffer.from("free again")), call);
      await driver.delete(key, call);
    }
  }
  violations.push(...files.files().map((path) => `${path} is left after all was purged`));
  return violations;
}

describe("power loss at each step of puts and a delete", () => {
  test("a blob is whole or absent, and what was acknowledged holds", async () => {
    const { violations, steps } = await crashEverywhere({});
    expect(violations).toEqual([]);
    expect(steps).toBeGreaterThan(50);
  });

  test("the same without hard links", async () => {
    const fault =
      () =>
      ({ name }: RecordedCall) =>
        name === "link" ? ({ kind: "fail", code: "EPERM" } as const) : undefined;
    expect((await crashEverywhere({ fault })).violations).toEqual([]);
  });

  test("the same with writes that take a part only", async () => {
    const fault =
      () =>
      ({ name }: RecordedCall) =>
        name === "write" ? ({ kind: "short", bytes: 7001 } as const) : undefined;
    expect((await crashEverywhere({ fault })).violations).toEqual([]);
  });

  test("who is told that a key exists can rely on it", async () => {
    // A put that has linked its blob dies; the next one meets it, and its caller compares the bytes and is content.
    const history: History = async (driver, expected) => {
      expected.set(one, "whole or missing");
      await driver.put(one, body(), call).catch(() => {});
      const { code } = await failureOf(driver.put(one, body(), call));
      if (code === "BACKEND_KEY_EXISTS") expected.set(one, "whole");
    };
    const dies = (isLost: boolean) => (): ((made: RecordedCall) => FileFault | undefined) => {
      let isLinked = false;
      let hasDied = false;
      return ({ name, path }) => {
        if (name === "link") isLinked = true;
        // The first directory fsync after the link fails, and so does what would take the blob back.
        if (!hasDied && isLinked && name === "sync") {
          hasDied = true;
          return { kind: "fail", code: "EIO" };
        }
        if (hasDied && name === "unlink" && path.endsWith(".blob")) return { kind: "fail", code: "EIO" };
        return isLost && hasDied && name === "sync" && path.endsWith("/4f") ? { kind: "lost" } : undefined;
      };
    };
    expect((await crashEverywhere({ history, fault: dies(false) })).violations).toEqual([]);
    // The rule can fail: without that fsync it does.
    expect((await crashEverywhere({ history, fault: dies(true) })).violations.join()).toContain(
      `${one} was acknowledged and is lost`,
    );
  });
});

describe("each rule of order matters: swapped, it is found", () => {
  const lostSyncOf =
    (wanted: string) =>
    () =>
    ({ name, path }: RecordedCall): FileFault | undefined =>
      name === "sync" && path === wanted ? { kind: "lost" } : undefined;

  test("the bytes are fsynced before they get their name", async () => {
    const { violations } = await crashEverywhere({ variant: syncedAfterLink });
    expect(violations.join("\n")).toContain(`${one} is neither whole nor missing`);
  });

  test("the blob's name is fsynced before the put resolves", async () => {
    const { violations } = await crashEverywhere({ fault: lostSyncOf(`${root}/4f`) });
    expect(violations.join("\n")).toContain(`${two} was acknowledged and is lost`);
  });

  test("that a name is gone is fsynced before the delete resolves", async () => {
    const fault = () => {
      let isDeleted = false;
      return ({ name, path }: RecordedCall): FileFault | undefined => {
        if (name === "unlink") isDeleted = path.endsWith(".blob");
        return isDeleted && name === "sync" ? { kind: "lost" } : undefined;
      };
    };
    const { violations } = await crashEverywhere({ fault });
    expect(violations.join("\n")).toContain(`${one} was deleted and is back`);
  });

  test("a fan-out directory's name is fsynced before the put resolves", async () => {
    const { violations } = await crashEverywhere({ fault: lostSyncOf(root) });
    expect(violations.join("\n")).toContain(`${three} was acknowledged and is lost`);
  });

  test.each(["/", "/volume", "/volume/made"])(
    "so is that of a directory that was made above, in %s",
    async (parent) => {
      const { violations } = await crashEverywhere({ fault: lostSyncOf(parent) });
      expect(violations.join("\n")).toContain(`${one} was acknowledged and is lost`);
    },
  );
});
