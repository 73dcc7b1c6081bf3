import type { ConfigurationWarning } from "../../config/index.ts";
import type { Context } from "../context.ts";
import { writeJson } from "../json.ts";
import { printable } from "../printable.ts";
import { readConfigurationFile } from "../settings.ts";

/** What `config validate` prints when the file can be used. */
export interface ValidationReport {
  readonly file: string;
  readonly warnings: readonly ConfigurationWarning[];
}

export async function configValidate(context: Context, file: string): Promise<void> {
  const { warnings } = await readConfigurationFile(file, context.host.environment);
  const report: ValidationReport = { file, warnings };
  if (context.format === "json") return await writeJson(context.output, report);
  const { yellow } = context.colors;
  for (const { file: where, line, text } of warnings) {
    await context.output.write(`${yellow("warning:")} ${printable(`${where}:${line}: ${text}`)}\n`);
  }
  await context.output.write(`${printable(file)} is valid\n`);
  await context.output.flush();
}
