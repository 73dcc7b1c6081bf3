import { Secret, type Source } from "../../config/index.ts";
import type { Context } from "../context.ts";
import { writeJson } from "../json.ts";
import { printable } from "../printable.ts";
import { writeTable } from "../table.ts";

/** What `config show` prints. */
export interface EffectiveConfiguration {
  /** The configuration file, if there is one. */
  readonly file?: string;
  readonly values: readonly {
    readonly key: string;
    /** Asterisks when it is secret. */
    readonly value: string | number | boolean | null;
    readonly isSecret: boolean;
    readonly source: Source;
  }[];
}

export async function configShow(context: Context): Promise<void> {
  const { configuration, values } = await context.settings();
  const shown: EffectiveConfiguration = {
    ...(configuration.file === undefined ? {} : { file: configuration.file }),
    values: values.map(({ key, value, source }) => ({
      key,
      value: value instanceof Secret ? String(value) : value,
      isSecret: value instanceof Secret,
      source,
    })),
  };
  if (context.format === "json") return await writeJson(context.output, shown);
  await writeTable(
    context.output,
    [{ title: "KEY" }, { title: "VALUE" }, { title: "FROM" }],
    shown.values.map(({ key, value, source }) => [
      key,
      value === "" ? '""' : printable(String(value ?? "-")),
      describeSource(source),
    ]),
    context.colors.bold,
  );
}

function describeSource(source: Source): string {
  if (source.kind === "default") return "default";
  if (source.kind !== "file") return source.name;
  const variables = source.variables.length === 0 ? "" : ` (${source.variables.join(", ")})`;
  return printable(`${source.file}:${source.line}${variables}`);
}
