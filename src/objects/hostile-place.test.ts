import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { failureOf } from "../../test/conformance/failure.ts";
import { startTestDatabase, type TestDatabase } from "../../test/embedded-database.ts";
import { createCall, silentProgress, systemClock } from "../runtime/index.ts";
import { localfsDriver } from "./drivers/localfs/index.ts";
import { type BackendSection, type DriverOpener, type ObjectRef, openObjectStore } from "./index.ts";

const call = createCall();
const ref: ObjectRef = { account: "a", bucket: "b", key: "k" };
let opened: TestDatabase;
let directory: string;

beforeAll(async () => {
  opened = await startTestDatabase();
});
afterAll(() => opened?.[Symbol.asyncDispose]());
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "stowage-test-hostile-"));
});
afterEach(async () => {
  await opened.clear();
  await rm(directory, { recursive: true, force: true });
});

function open(others: readonly BackendSection[] = []) {
  return openObjectStore({ database: opened.database, sections: { workingSet: files("place"), others } });
}

function files(name: string): BackendSection {
  const config = localfsDriver.schema.parse({ archive_data_dir: join(directory, name) });
  return { opener: localfsDriver as DriverOpener, config };
}

type Store = Awaited<ReturnType<typeof openObjectStore>>;

function scrub(store: Store) {
  const begin = () => silentProgress.begin("", 0);
  return store.scrub({ share: 1, restart: false, seed: 1, clock: systemClock, begin }, call);
}

async function plant(name: string, bytes: Buffer | string): Promise<void> {
  const path = join(directory, "place", name.slice(0, 2), `${name}.blob`);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, bytes);
}

describe("what a stranger puts into a place", () => {
  test.each(["null", "1", '"text"', "[]", "{}", '{"installation":{},"backend":[],"token":null}', "\u0000", ""])(
    "a marker %j is another's: nothing is written there, and no more is wrong",
    async (marker) => {
      await plant("0".repeat(31).concat("1"), marker);
      await using store = await open();
      const body = { open: async () => Readable.from([Buffer.from("x")]) };
      expect((await failureOf(store.stage(ref, body, call))).code).toBe("BACKEND_FOREIGN");
      expect(await readdir(join(directory, "place"))).toEqual(["00"]);
    },
  );

  test("names in a header that no database takes, or that never end, are reported, short, and end no scrub", async () => {
    const nasty = "a\0\ud800";
    const header = {
      installation: nasty,
      location: 1,
      account: nasty,
      bucket: "b",
      key: "k".repeat(60_000),
      codec: "x",
    };
    const json = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(4);
    length.writeUInt32LE(json.length);
    await plant("ab".repeat(16), Buffer.concat([Buffer.from("STOWOBJ1"), length, json]));
    await using store = await open();
    const { counts, findings, failures } = await scrub(store);
    expect(failures).toEqual([]);
    expect(counts).toEqual({ extra: 1 });
    expect(findings[0]?.detail).toMatch(/^a\ufffd\ufffd\/b\/k+…$/);
    expect(findings[0]?.detail.length).toBeLessThan(1000);
  });
});
