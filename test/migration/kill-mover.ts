/**
 * Carries out a migration, or goes on with it, in a process of its own that kills itself at a step, is killed, or ends.
 *
 * Usage: node kill-mover.ts DATA_DIRECTORY OPTIONS
 *
 * Standard output: JSON lines, each written before anything else happens.
 */
import { writeSync } from "node:fs";
import { type MigrationOrder, Migrations } from "../../src/migration/index.ts";
import { createCall, onStep, systemClock } from "../../src/runtime/index.ts";
import { openAt, type RealPlace, sectionOf } from "./real-places.ts";

export interface MoverTask {
  readonly from: RealPlace;
  readonly to: RealPlace;
  readonly places: readonly RealPlace[];
  readonly isOnline: boolean;
  readonly verify: "readback" | "checksum";
  /** The n-th step that is announced. */
  readonly killAtStep?: number;
}

export type MoverLine = { readonly step: string } | { readonly state: string };

const [dataDirectory = "", parameters = "{}"] = process.argv.slice(2);
const { from, to, places, isOnline, verify, killAtStep } = JSON.parse(parameters) as MoverTask;
const call = createCall();
const say = (line: MoverLine) => writeSync(1, `${JSON.stringify(line)}\n`);

let steps = 0;
onStep(({ name }) => {
  say({ step: name });
  if (++steps === killAtStep) process.kill(process.pid, "SIGKILL");
});

await using opened = await openAt(dataDirectory, [to, ...places], call);
const { database, store } = opened;
const migrations = new Migrations(database, store);
const [source, destination] = [
  await store.copies.backendOf(sectionOf(from), call),
  await store.copies.backendOf(sectionOf(to), call),
];
const order: MigrationOrder = {
  selection: { sourceBackendId: source, destinationBackendId: destination, archiveBackendId: destination },
  source: { driver: from.driver, place: from.driver },
  destination: { driver: to.driver, place: to.driver },
  keepsSources: false,
  verify,
  isOnline,
  files: ["source.yaml", "destination.yaml"],
};
const id = (await migrations.findUnfinished(order))?.id ?? (await migrations.plan(order, "kill test", call));
const pace = {
  concurrency: "auto",
  executor: "kill test",
  clock: { ...systemClock, sleep: (_ms: number, under: typeof call) => systemClock.sleep(50, under) },
  passesMax: 3,
  watch: () => {},
} as const;
say({ state: (await migrations.run(id, pace, call)).state });
