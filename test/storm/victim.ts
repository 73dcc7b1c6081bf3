/**
 * Does to a store what its script says, in a process of its own that kills itself at a step, is killed, or ends.
 *
 * Usage: node victim.ts DATA_DIRECTORY ROOT OPTIONS
 *
 * Standard output: JSON lines (`Line`), each written before anything else happens. What stands there is what the victim had reason to believe.
 */
import { writeSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { openDatabase } from "../../src/db/index.ts";
import { guard, type ObjectRef, openObjectStore, type StagedObject } from "../../src/objects/index.ts";
import { announce, createCall, onStep, silentProgress, systemClock } from "../../src/runtime/index.ts";
import { contentOf } from "./contents.ts";
import type { Deed, Line } from "./kill-script.ts";
import { killSections } from "./kill-sections.ts";

export interface VictimOptions {
  readonly deeds: readonly Deed[];
  /** The n-th step that is announced, or the n-th of a name. */
  readonly killAt?: { readonly name?: string; readonly nth: number };
}

const [dataDirectory = "", root = "", options = "{}"] = process.argv.slice(2);
const { deeds, killAt } = JSON.parse(options) as VictimOptions;
const call = createCall();
// Synchronous: a line in a stream's buffer would die with the process.
const say = (line: Line) => writeSync(1, `${JSON.stringify(line)}\n`);

let steps = 0;
const counts = new Map<string, number>();
onStep(({ name }) => {
  steps++;
  const nth = (counts.get(name) ?? 0) + 1;
  counts.set(name, nth);
  say({ step: name, nth });
  const isTime =
    killAt !== undefined && (killAt.name === undefined ? steps : killAt.name === name && nth) === killAt.nth;
  if (isTime) process.kill(process.pid, "SIGKILL");
});

const database = await openDatabase({ kind: "embedded", dataDirectory }, { connectionsMax: 4 }, call);
const store = await openObjectStore({
  database,
  sections: killSections(join(root, "files")),
  guard,
  retireGraceSeconds: 0,
  lateSeconds: 0,
});
for (const deed of deeds) {
  say({ begin: deed });
  await perform(deed);
  say({ done: true });
  // Between what is durable and what comes next is a place to die like any other.
  announce("victim acknowledged");
}
process.exit(0);

async function perform(deed: Deed): Promise<void> {
  switch (deed.kind) {
    case "put": {
      const staged: StagedObject[] = [];
      for (const [index, name] of deed.keys.entries())
        staged.push(await stage(name, deed.serial + index, deed.isLarge));
      say({ intend: Object.fromEntries(deed.keys.map((name, index) => [name, staged[index]?.contentDigest ?? ""])) });
      await database.transaction((tx) => store.publish(tx, staged), call);
      return;
    }
    case "retire":
      say({ intend: { [deed.key]: "absent" } });
      await database.transaction((tx) => store.retire(tx, refOf(deed.key)), call);
      return;
    case "reap":
      await store.reap(10, call);
      return;
    case "scrub": {
      const begin = () => silentProgress.begin("", undefined);
      await store.scrub({ share: 1, restart: false, seed: 1, clock: systemClock, begin }, call);
    }
  }
}

async function stage(name: string, serial: number, isLarge: boolean): Promise<StagedObject> {
  const { bytes } = contentOf(serial, isLarge ? 1_500_000 : 3000 + serial);
  async function* pieces() {
    const half = bytes.length >> 1;
    yield bytes.subarray(0, half);
    announce("victim halfway");
    yield bytes.subarray(half);
  }
  const open = async () => Readable.from(pieces());
  // What is short and known to be goes into a database in one statement.
  return await store.stage(refOf(name), serial % 2 === 0 ? { open, sizeBytes: bytes.length } : { open }, call);
}

function refOf(name: string): ObjectRef {
  const [account = "", bucket = "", key = ""] = name.split("/");
  return { account, bucket, key };
}
