import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import type { Database } from "../db/index.ts";
import { isCode, StowageError, toStowageError } from "../errors/index.ts";
import { type Call, throwIfAborted } from "../runtime/index.ts";
import { type BackendSection, describeSection } from "./backends.ts";
import type { ObjectDriver, PhysicalKey } from "./driver.ts";
import { describeOwner } from "./marker.ts";
import { createPhysicalKey } from "./physical-key.ts";
import { collect } from "./short-bytes.ts";

/** One thing that a backend has to be able to do. */
export interface CheckStep {
  readonly name: string;
  /** `skipped`: an earlier step failed. */
  readonly outcome: "ok" | "failed" | "skipped";
  readonly durationMs: number;
  /** What was found. */
  readonly detail: string | undefined;
  readonly error: StowageError | undefined;
}

const smallBytes = 1000;
/** More than any driver sends in one piece. */
const largeBytes = 20_000_000;
/** Bytes of the two test documents. */
export const checkSizes = { small: smallBytes, large: largeBytes } as const;

interface Checked {
  driver: ObjectDriver;
  readonly small: PhysicalKey;
  readonly large: PhysicalKey;
  readonly content: Buffer;
}

type Work = (checked: Checked, call: Call) => Promise<string | undefined>;

/** In this order; those after a failure are skipped, but what was written is deleted all the same. */
const steps: readonly (readonly [name: string, work: Work])[] = [
  [
    "find out what it can do",
    async ({ driver }, call) => {
      const { exclusivePut, serverDigest } = await driver.capabilities(call);
      const digest = serverDigest ? "vouches for what it stored" : "is read back after each write";
      return `${digest}, ${exclusivePut ? "refuses" : "does not refuse"} to overwrite`;
    },
  ],
  [
    "write",
    async ({ driver, small, content }, call) => {
      await driver.put(small, bodyOf(content.subarray(0, smallBytes)), call);
      return `${smallBytes} bytes`;
    },
  ],
  [
    "write a large one",
    async ({ driver, large, content }, call) => {
      // Of unknown size, as documents are that are compressed while they are written.
      const { sizeBytes, ...body } = bodyOf(content);
      await driver.put(large, body, call);
      return `${sizeBytes} bytes`;
    },
  ],
  [
    "read back",
    async ({ driver, small, content }, call) => {
      const bytes = await read(driver, small, smallBytes + 1, call);
      if (!bytes.equals(content.subarray(0, smallBytes))) throw different(driver, small);
      return "the same bytes";
    },
  ],
  [
    "read back the large one",
    async ({ driver, large, content }, call) => {
      const hash = createHash("sha256");
      for await (const chunk of await driver.get(large, undefined, call)) hash.update(chunk as Buffer);
      if (hash.digest("hex") !== createHash("sha256").update(content).digest("hex")) throw different(driver, large);
      return "the same digest";
    },
  ],
  [
    "read a part",
    async ({ driver, large, content }, call) => {
      const first = largeBytes - 5000;
      const bytes = await collect(await driver.get(large, { first, last: first + 999 }, call), 1000);
      if (!bytes.equals(content.subarray(first, first + 1000))) throw different(driver, large);
      return "the same bytes";
    },
  ],
  [
    "overwrite",
    async ({ driver, small, content }, call) => {
      const { exclusivePut } = await driver.capabilities(call);
      // Never done where it would take effect: whatever is stored is written under a new name.
      if (!exclusivePut) return "not tried: this backend would do it, and stowage never does";
      try {
        await driver.put(small, bodyOf(content.subarray(0, 10)), call);
      } catch (error) {
        if (isCode(error, "BACKEND_KEY_EXISTS")) return "refused, as it should be";
        throw error;
      }
      throw new StowageError("BACKEND_FAILED", { ...about(driver, "put", small), reason: "it was overwritten" });
    },
  ],
  [
    "list",
    async ({ driver, small, large }, call) => {
      const wanted = new Set([small, large]);
      let seen = 0;
      for await (const { key } of driver.list(undefined, call)) {
        seen++;
        wanted.delete(key);
        if (wanted.size === 0) return `found both after ${seen}`;
      }
      const { listLagMs } = await driver.capabilities(call);
      if (listLagMs > 0) return `not listed yet; listings may lag by ${listLagMs} ms`;
      throw new StowageError("BACKEND_FAILED", {
        ...about(driver, "list", small),
        reason: "what was written is missing",
      });
    },
  ],
];

const deleteStep: readonly [string, Work] = [
  "delete",
  async ({ driver, small, large }, call) => {
    for (const key of [small, large]) await driver.purge(key, undefined, call);
    for (const key of [small, large]) {
      try {
        (await driver.get(key, undefined, call)).destroy();
      } catch (error) {
        if (isCode(error, "BACKEND_KEY_MISSING")) continue;
        throw error;
      }
      throw new StowageError("BACKEND_FAILED", { ...about(driver, "delete", key), reason: "it is still there" });
    }
    return "both are gone";
  },
];

const ownerStep = "find out whose it is";
const laterSteps: readonly string[] = [...steps.map(([name]) => name), deleteStep[0], ownerStep];

/** The steps of a check that ends before it begins: without its database no store can be used. */
export function* refusedCheck(error: StowageError): Generator<CheckStep> {
  yield { name: "open the database", outcome: "failed", durationMs: 0, detail: undefined, error };
  for (const name of ["connect", ...laterSteps]) yield skipped(name);
}

/**
 * Does with the backend of a section all that the store does, on documents of its own, and tells of each step as it ends. Nothing but these documents is
 * touched.
 */
export async function* checkBackend(
  section: BackendSection,
  database: Database,
  guard: (driver: ObjectDriver) => ObjectDriver,
  call: Call,
): AsyncGenerator<CheckStep> {
  let driver: ObjectDriver | undefined;
  const connected = await attempt("connect", call, async () => {
    driver = guard(await section.opener.open(section.config, { database }, call));
    return undefined;
  });
  yield connected;
  if (driver === undefined) {
    for (const name of laterSteps) yield skipped(name);
    return;
  }
  await using opened = driver;
  const content = Buffer.from(randomBytes(largeBytes));
  const checked: Checked = { driver: opened, small: createPhysicalKey(), large: createPhysicalKey(), content };
  let hasFailed = false;
  let isDeleted = false;
  const removeAll = async (under: Call) => {
    isDeleted = true;
    return await attempt(deleteStep[0], under, () => deleteStep[1](checked, under));
  };
  try {
    for (const [name, work] of steps) {
      if (hasFailed) {
        yield skipped(name);
        continue;
      }
      const step = await attempt(name, call, () => work(checked, call));
      hasFailed = step.outcome === "failed";
      yield step;
    }
    const removed = await removeAll(call);
    yield removed;
    // The last one: whether the rights suffice is worth knowing of another installation's place, too.
    if (hasFailed || removed.outcome === "failed") yield skipped(ownerStep);
    else yield await attempt(ownerStep, call, () => describeOwner(database, opened, describeSection(section), call));
  } finally {
    // Interrupted or left: nobody hears of it any more, but what was written goes.
    if (!isDeleted) await removeAll({ ...call, signal: AbortSignal.timeout(10_000) }).catch(() => {});
  }
}

async function attempt(name: string, call: Call, work: () => Promise<string | undefined>): Promise<CheckStep> {
  const started = performance.now();
  const durationMs = () => performance.now() - started;
  try {
    const detail = await work();
    return { name, outcome: "ok", durationMs: durationMs(), detail, error: undefined };
  } catch (error) {
    throwIfAborted(call);
    return { name, outcome: "failed", durationMs: durationMs(), detail: undefined, error: toStowageError(error) };
  }
}

function skipped(name: string): CheckStep {
  return { name, outcome: "skipped", durationMs: 0, detail: undefined, error: undefined };
}

async function read(driver: ObjectDriver, key: PhysicalKey, most: number, call: Call): Promise<Buffer> {
  return await collect(await driver.get(key, { first: 0, last: most }, call), most + 1);
}

function bodyOf(bytes: Buffer): { readonly open: () => Promise<Readable>; readonly sizeBytes: number } {
  return { open: async () => Readable.from(bytes.length === 0 ? [] : [bytes]), sizeBytes: bytes.length };
}

function about(driver: ObjectDriver, operation: string, key: PhysicalKey) {
  return { driver: driver.name, operation, key };
}

function different(driver: ObjectDriver, key: PhysicalKey): StowageError {
  return new StowageError("BACKEND_FAILED", { ...about(driver, "get", key), reason: "other bytes than were written" });
}
