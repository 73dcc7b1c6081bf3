/**
 * Puts, overwrites, deletes and reaps, in a process of its own that kills itself: at the n-th step that is announced, or never.
 *
 * Usage: node objects-victim.ts DATA_DIRECTORY STEP
 *
 * Standard output: a line for each step that is reached (`step NAME`), and one for each operation that is done (`done NAME`). What was written
 * before the end is what the victim had reason to believe.
 */
import { writeSync } from "node:fs";
import { Readable } from "node:stream";
import { openDatabase } from "../../src/db/index.ts";
import { DatabaseDriver } from "../../src/objects/drivers/db/index.ts";
import { type ObjectRef, openObjectStore } from "../../src/objects/index.ts";
import { announce, createCall, onStep } from "../../src/runtime/index.ts";
import { sectionsOf } from "../objects/sections.ts";
import { bodyOfVersion, bodyPiece, isLengthKnown, piecesOf, ref } from "./objects-history.ts";

const [dataDirectory = "", killAt = ""] = process.argv.slice(2);
const call = createCall();
// Synchronous: a line in a stream's buffer would die with the process.
const say = (line: string) => writeSync(1, `${line}\n`);

const database = await openDatabase({ kind: "embedded", dataDirectory }, {}, call);
const driver = new DatabaseDriver(database);
const store = await openObjectStore({ database, sections: sectionsOf(driver), retireGraceSeconds: 0, lateSeconds: 0 });

let steps = 0;
onStep(({ name }) => {
  say(`step ${name}`);
  if (++steps === Number(killAt)) process.kill(process.pid, "SIGKILL");
});

await run("put 1", () => put(ref, 1));
await run("put 2", () => put(ref, 2));
await run("reap 1", () => store.reap(10, call));
await run("put 3", () => put(ref, 3));
await run("retire", () => database.transaction((tx) => store.retire(tx, ref), call));
// One at a time, so that their steps come in one order.
await run("reap 2", () => store.reap(1, call));
await run("reap 3", () => store.reap(1, call));
await run("put 4", () => put(ref, 4));
await run("put 5", () => put(ref, 5));
process.exit(0);

async function run(name: string, operation: () => Promise<unknown>): Promise<void> {
  await operation();
  say(`done ${name}`);
  // Between what is durable and what comes next is a place to die like any other.
  announce("victim acknowledged");
}

async function put(to: ObjectRef, version: number): Promise<void> {
  const body = async function* () {
    for (let piece = 0; piece < piecesOf(version); piece++) {
      if (piece === Math.floor(piecesOf(version) / 2)) announce("victim halfway");
      yield bodyPiece(version);
    }
  };
  const open = async () => Readable.from(body());
  const known = isLengthKnown(version) ? { sizeBytes: bodyOfVersion(version).length } : {};
  const staged = await store.stage(to, { open, ...known }, call);
  await database.transaction((tx) => store.publish(tx, [staged]), call);
}
