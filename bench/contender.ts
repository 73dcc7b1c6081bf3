import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BenchImage } from "./layout.ts";
import { type Measurement, measure, waitForDatabaseEnd } from "./measure.ts";

/** A way to analyse an image of an OCI layout, cold: all that it keeps goes below `scratch`, which is new for every run. */
export interface Contender {
  readonly name: string;
  /** What it was told to do, and what it was spared. */
  readonly remark: string;
  /** What is not measured. */
  prepare(scratch: string): Promise<void>;
  command(layout: string, tag: string, scratch: string): readonly string[];
  /** The same of an image of a registry; layers that it keeps below `scratch` are not pulled again. */
  pull?(reference: string, scratch: string): readonly string[];
  environment(scratch: string): Readonly<Record<string, string>>;
  /** Where an embedded database works, if there is one. */
  dataDirectory?(scratch: string): string;
}

/** One cold run. */
export async function runOnce(contender: Contender, image: BenchImage): Promise<Measurement> {
  return withScratch(async (scratch) => {
    await contender.prepare(scratch);
    const data = contender.dataDirectory?.(scratch);
    const measurement = await measure(contender.command(image.layout, image.tag, scratch), {
      environment: contender.environment(scratch),
      ...(data === undefined ? {} : { dataDirectory: data }),
    });
    if (data !== undefined) await waitForDatabaseEnd(data);
    return measurement;
  });
}

/** A directory for the duration of `work`. */
export async function withScratch<T>(work: (scratch: string) => Promise<T>): Promise<T> {
  const scratch = await mkdtemp(join(tmpdir(), "stowage-bench-"));
  try {
    // Under root the embedded database runs as another user, which has to reach its directory.
    await chmod(scratch, 0o755);
    return await work(scratch);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
