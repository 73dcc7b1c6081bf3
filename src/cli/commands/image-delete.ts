import { StowageError } from "../../errors/index.ts";
import { confirm } from "../confirm.ts";
import type { Context } from "../context.ts";
import { formatBytes } from "../format.ts";
import { writeJson } from "../json.ts";
import { printable } from "../printable.ts";
import type { DeleteFlags } from "../program.ts";

/**
 * Asks first when a person is there to answer. A script is not asked: what is deleted is an analysis, which can be made again.
 */
export async function imageDelete(context: Context, name: string, flags: DeleteFlags): Promise<void> {
  await using application = await context.open();
  let image = name;
  if (!flags.yes && context.host.stdin.isTTY && context.host.stderr.isTTY) {
    const { digest, fullTags } = await application.getImage(name, context.call);
    const tags = fullTags.length === 0 ? "no tags" : fullTags.map(printable).join(", ");
    if (!(await confirm(context, `Delete the analysis of ${digest} (${tags})? [y/N] `))) {
      throw new StowageError("INPUT_DECLINED", { what: "nothing was deleted" });
    }
    // A tag may have moved while the person was thinking: what was agreed to is what goes.
    image = digest;
  }
  const report = await application.deleteImage(image, context.call);
  if (context.format === "json") return await writeJson(context.output, report);
  await context.output.write(`deleted ${report.digest}, ${formatBytes(report.bytesReclaimed)} no longer needed\n`);
  for (const tag of report.fullTags) await context.output.write(`untagged ${printable(tag)}\n`);
  await context.output.flush();
}
