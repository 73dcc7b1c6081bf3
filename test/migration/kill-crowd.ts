/**
 * Writes, overwrites, deletes and reads beside a migration until it is told to stop (SIGTERM) or killed.
 *
 * Usage: node kill-crowd.ts DATA_DIRECTORY OPTIONS
 *
 * Standard output: JSON lines, each written before anything else happens: what a deed will make of an object, and that it is done.
 */
import { writeSync } from "node:fs";
import { buffer } from "node:stream/consumers";
import { isCode } from "../../src/errors/index.ts";
import { createCall } from "../../src/runtime/index.ts";
import { createRandom } from "../fault/random.ts";
import { bodyOf, contentOf, digestOf } from "../storm/contents.ts";
import { refOf } from "./deeds.ts";
import { openAt, type RealPlace } from "./real-places.ts";

export interface CrowdTask {
  /** Its new objects go to the first. */
  readonly places: readonly RealPlace[];
  readonly seed: number;
  readonly firstSerial: number;
  /** What there is, by name. */
  readonly objects: Readonly<Record<string, string>>;
  /** Whether readers are promised anything. */
  readonly reads: boolean;
}

export type CrowdLine =
  | { readonly intend: string; readonly value: string }
  | { readonly done: boolean }
  | { readonly violation: string };

const [dataDirectory = "", parameters = "{}"] = process.argv.slice(2);
const { places, seed, firstSerial, objects, reads } = JSON.parse(parameters) as CrowdTask;
const call = createCall();
const say = (line: CrowdLine) => writeSync(1, `${JSON.stringify(line)}\n`);
const known = new Map(Object.entries(objects));
const random = createRandom(seed);
let isStopping = false;
process.on("SIGTERM", () => {
  isStopping = true;
});

await using opened = await openAt(dataDirectory, places, call);
const { database, store } = opened;
for (let serial = firstSerial; !isStopping; serial++) {
  const drawn = random.next();
  const fresh = `one/b/new-${random.integer(6)}`;
  const name = random.next() < 0.2 ? fresh : random.pick([...known.keys(), fresh]);
  if (drawn < 0.5) await put(name, serial);
  else if (drawn < 0.65) await remove(name);
  else if (reads) await read(name);
}

async function put(name: string, serial: number): Promise<void> {
  const content = contentOf(serial, random.next() < 0.1 ? 400_000 : random.integer(9000));
  try {
    const staged = await store.stage(refOf(name), bodyOf(content, random.next() < 0.5), call);
    say({ intend: name, value: content.digest });
    await database.transaction((tx) => store.publish(tx, [staged]), call);
    say({ done: true });
    known.set(name, content.digest);
  } catch (error) {
    // The clock jumped: it counts as dead.
    if (!isCode(error, "OBJECT_LEASE_LOST")) throw error;
    say({ done: false });
  }
}

async function remove(name: string): Promise<void> {
  say({ intend: name, value: "absent" });
  await database.transaction((tx) => store.retire(tx, refOf(name)), call);
  say({ done: true });
  known.delete(name);
}

async function read(name: string): Promise<void> {
  try {
    const value = digestOf(await buffer((await store.get(refOf(name), call)).body));
    if (value !== known.get(name)) say({ violation: `${name} is read as ${value} instead of ${known.get(name)}` });
  } catch (error) {
    if (isCode(error, "OBJECT_NOT_FOUND") && !known.has(name)) return;
    say({ violation: `${name} can't be read: ${(error as Error).stack}` });
  }
}
