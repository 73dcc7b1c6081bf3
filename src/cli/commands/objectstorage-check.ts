import type { StoreName } from "../../app/index.ts";
import type { SerializedError, StowageError } from "../../errors/index.ts";
import type { CheckStep } from "../../objects/index.ts";
import type { Context } from "../context.ts";
import { formatDuration } from "../format.ts";
import { writeJson } from "../json.ts";
import { printable } from "../printable.ts";

/** What `objectstorage check` prints. */
export interface CheckReport {
  readonly file: string;
  readonly isUsable: boolean;
  readonly backends: readonly CheckedBackend[];
}

interface CheckedBackend {
  /** The stores that lie there. */
  readonly stores: readonly StoreName[];
  readonly place: string;
  readonly steps: readonly (Omit<CheckStep, "error"> & { readonly error: SerializedError | undefined })[];
}

export async function objectstorageCheck(context: Context, file: string): Promise<void> {
  const { output, format, call } = context;
  let failure: StowageError | undefined;
  const backends: CheckedBackend[] = [];
  {
    await using opened = await context.openStoreCheck(file);
    for (const { stores, place, run } of opened.backends) {
      const steps: CheckedBackend["steps"][number][] = [];
      if (format === "table") {
        if (backends.length > 0) await output.write("\n");
        await output.write(`${context.colors.bold(titleOf(stores))}: ${printable(place)}\n`);
        await output.flush();
      }
      for await (const step of run(call)) {
        failure ??= step.error;
        steps.push({ ...step, durationMs: Math.round(step.durationMs), error: step.error?.serialize() });
        if (format === "json") continue;
        await output.write(lineOf(step, context));
        // Each as it ends: some take their time.
        await output.flush();
      }
      backends.push({ stores, place, steps });
    }
  }
  if (format === "json") await writeJson(output, { file, isUsable: failure === undefined, backends });
  if (failure !== undefined) throw failure;
}

function titleOf(stores: readonly StoreName[]): string {
  return stores.length === 1 ? stores.join() : `${stores.join(" and ")} (the same place, checked once)`;
}

const nameWidth = 24;

function lineOf({ name, outcome, durationMs, detail, error }: CheckStep, { colors }: Context): string {
  const mark = { ok: colors.green("ok"), failed: colors.red("FAILED"), skipped: colors.yellow("skipped") }[outcome];
  const padding = " ".repeat("skipped".length - outcome.length);
  const took = outcome === "skipped" ? "" : formatDuration(durationMs);
  const text = printable(error?.message ?? detail ?? "");
  return `  ${mark}${padding}  ${name.padEnd(nameWidth)}${took.padStart(8)}  ${text}`.trimEnd().concat("\n");
}
