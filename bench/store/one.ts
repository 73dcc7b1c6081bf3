/** One contender on one field, in a process of its own: `node bench/store/one.ts '{…}'`. Prints a line of JSON. */
import { peakMemory } from "../measure.ts";
import { type Field, openContender } from "./contenders.ts";

export interface Task {
  readonly contender: string;
  readonly field: Field;
  readonly documents: number;
  readonly sizeBytes: number;
  readonly concurrency: number;
}

export interface Outcome {
  readonly putMs: number;
  readonly getMs: number;
  readonly cpuMs: number;
  readonly peakRssBytes: number;
}

const task = JSON.parse(process.argv[2] ?? "{}") as Task;
const { documents, sizeBytes, concurrency } = task;
await using contender = await openContender(task.contender, task.field);
const before = process.cpuUsage();
const putMs = await timed((index) => contender.put(index, sizeBytes));
const getMs = await timed(async (index) => {
  const bytes = await contender.get(index);
  if (bytes !== sizeBytes) throw new Error(`document ${index} has ${bytes} bytes instead of ${sizeBytes}`);
});
const { user, system } = process.cpuUsage(before);
const peakRssBytes = peakMemory();
console.log(JSON.stringify({ putMs, getMs, cpuMs: (user + system) / 1000, peakRssBytes } satisfies Outcome));

async function timed(work: (index: number) => Promise<void>): Promise<number> {
  const begun = performance.now();
  let next = 0;
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (next < documents) await work(next++);
    }),
  );
  return performance.now() - begun;
}
