import { StowageError } from "../../errors/index.ts";
import { confirm } from "../confirm.ts";
import type { Context } from "../context.ts";
import { writeJson } from "../json.ts";
import type { ClaimFlags } from "../objectstorage-program.ts";
import { printable } from "../printable.ts";

/** What `objectstorage claim` prints. */
export interface ClaimReport {
  /** Places that have a marker; what lies in the database itself needs none. */
  readonly claimed: readonly string[];
}

/** Unlike a deletion, this is never done without a yes: a script that claims by mistake takes the stores from a living installation. */
export async function objectstorageClaim(context: Context, flags: ClaimFlags): Promise<void> {
  const { host, output, call } = context;
  const isAsked = host.stdin.isTTY && host.stderr.isTTY;
  if (!flags.yes) {
    if (!isAsked) throw declined("nobody is there to ask: add --yes");
    host.stderr.write(
      "This database takes over all stores of the configuration. Any copy of it, such as the one that it was\nrestored from, will not write or delete there any more. Do this only if no copy is in use.\n",
    );
    if (!(await confirm(context, "Claim the stores? [y/N] "))) throw declined("nothing was claimed");
  }
  let report: ClaimReport;
  {
    await using application = await context.open();
    report = { claimed: await application.objectStorage.claim(call) };
  }
  if (context.format === "json") return await writeJson(output, report);
  for (const place of report.claimed) await output.write(`claimed ${printable(place)}\n`);
  if (report.claimed.length === 0) await output.write("nothing to claim: all stores are in the database itself\n");
  await output.flush();
}

function declined(what: string): StowageError {
  return new StowageError("INPUT_DECLINED", { what });
}
