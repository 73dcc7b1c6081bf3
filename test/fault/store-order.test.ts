/**
 * The rules of `docs/durability.md`: what must be durable before what. For each, the order is swapped in a process of its own (`test/storm/plants.ts`), and
 * something that finds nothing otherwise has to find it.
 */
import { execFile } from "node:child_process";
import { readdirSync, readFileSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Backend } from "../storm/arena.ts";
import { KillGround, type RunOptions } from "../storm/kill-ground.ts";
import type { Deed } from "../storm/kill-script.ts";
import { plantNames } from "../storm/plants.ts";
import { races } from "../storm/races.ts";

const storm = join(import.meta.dirname, "..", "storm");
const name = "a/documents/one";
const put: Deed = { kind: "put", keys: [name], serial: 1, isLarge: false };
const overwrite: Deed = { ...put, serial: 2 };
const retire: Deed = { kind: "retire", key: name };
const reap: Deed = { kind: "reap" };

/** A process is killed, or not at all, and what it leaves is looked at. */
const kills: readonly (readonly [plant: string, options: RunOptions, found: RegExp])[] = [
  ["the intent after the bytes", { deeds: [put], killAt: { name: "objects stored", nth: 1 } }, /has no row/],
  ["the proof before the bytes", { deeds: [put], killAt: { name: "victim halfway", nth: 2 } }, /no such file/],
  [
    "visible in another transaction than the caller's",
    { deeds: [{ ...put, keys: [name, "a/documents/two"] }], killAt: { name: "planted", nth: 1 } },
    /1 of 2 writes happened/,
  ],
  [
    "live before its pointer, in another transaction",
    { deeds: [put], killAt: { name: "planted", nth: 1 } },
    /live without a pointer/,
  ],
  ["nothing retired when the pointer moves", { deeds: [put, overwrite] }, /live without a pointer/],
  [
    "retired before the pointer moves, in another transaction",
    { deeds: [put, overwrite], killAt: { name: "planted", nth: 2 } },
    /points to a location that is retired/,
  ],
  [
    "bytes deleted before that is decided",
    { deeds: [put, retire, reap], killAt: { name: "objects deleted", nth: 1 } },
    /is retired: ENOENT/,
  ],
  [
    "the row removed before the bytes are gone",
    { deeds: [put, retire, reap], killAt: { name: "planted", nth: 1 } },
    /has no row/,
  ],
  [
    "a marker without an intent",
    { deeds: [put], killAt: { name: "objects marker written", nth: 1 } },
    /belongs to another/,
  ],
  [
    "a marker recorded before it is written",
    { deeds: [put], killAt: { name: "objects marker intended", nth: 1 } },
    /belongs to another/,
  ],
];

/** Two steps are brought into one order. */
const interleavings: readonly (readonly [plant: string, race: string, backend: Backend])[] = [
  ["visible without a proof", "a backend stores something else than it was given", "files"],
  ["no grace for readers", "an object is overwritten and reaped while it is read, within the grace", "database"],
  ["no lease for writers", "a leased location is left alone", "files"],
  ["published whatever its state is", "the reaper decides, then it is published", "database"],
  ["a lease renewed whatever the state is", "a lease is renewed while the reaper deletes", "files"],
  ["bytes deleted before that is decided", "a lease is renewed while the reaper deletes", "files"],
  ["what can still arrive is deleted once", "a put arrives after the reaper was there", "files"],
  ["digests are not looked at", "a bit is wrong when an object is read", "files"],
  ["a stream may end too soon", "the end is missing when an object is read", "database"],
  ["a copy live before the pointer moves to it", "an object is overwritten before it lies at its copy", "files"],
  ["bytes that are gone have not moved", "an object is overwritten and reaped before its first byte is read", "files"],
];

const ofItsOwn = ["a scrub's place recorded before its findings"];

describe("what a killed process leaves", () => {
  let ground: KillGround;
  beforeAll(async () => {
    ground = await KillGround.open();
  });
  beforeEach(() => ground.reset());
  afterAll(() => ground?.[Symbol.asyncDispose]());

  const look = async () => {
    const found = [...(await ground.violations(false)), ...(await ground.cleanUp())];
    // Others go on with it.
    const { code, errors } = await ground.run({ deeds: [{ ...put, serial: 3 }] });
    return code === 0 ? [...found, ...(await ground.violations(false))] : [...found, errors];
  };

  test.each(kills)("%s: found", async (plant, options, found) => {
    const ended = await ground.run({ ...options, plant });
    expect(ended.signal, ended.errors).toBe(options.killAt === undefined ? null : "SIGKILL");
    expect((await look()).join("\n")).toMatch(found);
  });

  test.each(kills)("%s: nothing is found where it is not planted", async (_, options) => {
    await ground.run(options);
    expect(await look()).toEqual([]);
  });

  test.each([
    ["a scrub's place recorded before its findings", []],
    [undefined, ["truncated"]],
  ])("a scrub goes on behind what it has told (planted: %s)", async (plant, kinds) => {
    await ground.run({ deeds: [put] });
    const names = readdirSync(ground.files, { recursive: true, encoding: "utf8" });
    const [blob = ""] = names.filter((path) => /^[0-9a-f]{2}.[0-9a-f]{32}[.]blob$/.test(path) && !/0{24}/.test(path));
    truncateSync(join(ground.files, blob), readFileSync(join(ground.files, blob)).length - 10);
    const scrub: Deed = { kind: "scrub" };
    const killAt = { name: plant === undefined ? "objects scrubbed" : "planted", nth: 1 };
    const ended = await ground.run({ deeds: [scrub], killAt, ...(plant === undefined ? {} : { plant }) });
    expect(ended.signal, ended.errors).toBe("SIGKILL");
    await ground.run({ deeds: [scrub] });
    const findings = await ground.database.sql.selectFrom("scrub_findings").select("kind").execute();
    expect(findings.map(({ kind }) => kind)).toEqual(kinds);
  });
});

describe("what two steps make of each other", () => {
  test.each(interleavings)("%s: found by: %s", async (plant, race, backend) => {
    expect(Object.keys(races)).toContain(race);
    expect(await exitCodeOf(plant, race, backend)).toBe(3);
  });
});

test("everything that can be planted is found by something", () => {
  const found = [...kills, ...interleavings].map(([plant]) => plant);
  expect([...new Set([...found, ...ofItsOwn])].toSorted()).toEqual(plantNames.toSorted());
});

function exitCodeOf(plant: string, race: string, backend: Backend): Promise<number | string> {
  const command = ["--import", join(storm, "plant-hook.ts"), join(storm, "race.ts"), backend, race];
  return new Promise((resolve) => {
    execFile(process.execPath, command, { env: { ...process.env, STORM_PLANT: plant } }, (error, stdout, stderr) => {
      if (error?.code !== 3) console.log(stdout, stderr);
      resolve(error?.code ?? 0);
    });
  });
}
