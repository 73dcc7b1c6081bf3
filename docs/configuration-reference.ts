/** `reference/configuration.md`: the keys of `config.yaml`, from the schemas that read it. */
import { type ZodType, z } from "zod";
import { drivers } from "../src/app/drivers.ts";
import { analyzerSection, databaseArguments, databaseSection, storeSection, topLevel } from "../src/config/schema.ts";

interface KeySchema {
  readonly type?: string | readonly string[];
  readonly description?: string;
  readonly default?: unknown;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly properties?: Readonly<Record<string, KeySchema>>;
  readonly required?: readonly string[];
  readonly anyOf?: readonly KeySchema[];
}

export function configurationReference(notice: string): string {
  const section = inputOf(storeSection);
  const compression = section.properties?.compression?.anyOf?.find(({ properties }) => properties !== undefined);
  const sections = drivers.map((driver) => {
    const names = [driver.name, ...driver.aliases].map((name) => `\`${name}\``).join(" or ");
    const schema = inputOf(driver.schema);
    const none = Object.keys(schema.properties ?? {}).length === 0;
    return `### ${driver.name}

\`storage_driver.name: ${driver.name}\`: ${driver.summary}.${driver.aliases.length === 0 ? "" : ` Names: ${names}.`} ${none ? "It has no keys." : `Keys of \`storage_driver.config\`:\n\n${table(schema)}`}
`;
  });
  return `${notice}# Keys of config.yaml

How they work together is told in [configuration.md](../configuration.md). Keys in **bold** are required. Other keys in storage sections are errors; elsewhere they are warned of.

## Storage sections

\`services.catalog.object_store\` is the working set; \`archive\` is its older name. \`services.catalog.analysis_archive\` is the archive; without it the archive is in the store of the
working set. \`services.catalog.other_object_stores\` is a list of such sections, for stores that still hold objects but take no new ones.

Keys of \`compression\`:

${table(compression ?? {})}

Other keys of a section:

${table({ properties: without(section.properties, "compression", "storage_driver") })}

## Storage drivers

${sections.join("\n")}
## credentials.database

${table({ properties: without(inputOf(databaseSection).properties, "db_connect_args") })}

Keys of \`db_connect_args\`:

${table(inputOf(databaseArguments))}

## services.analyzer

${table(inputOf(analyzerSection))}

## Top level

${table({ properties: inputOf(topLevel).properties ?? {} })}
`;
}

function inputOf(schema: ZodType): KeySchema {
  return z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as KeySchema;
}

function without(
  properties: KeySchema["properties"],
  ...names: readonly string[]
): Readonly<Record<string, KeySchema>> {
  return Object.fromEntries(Object.entries(properties ?? {}).filter(([name]) => !names.includes(name)));
}

function table(schema: KeySchema): string {
  const rows = Object.entries(schema.properties ?? {}).map(([name, key]) => {
    const shown = schema.required?.includes(name) ? `**\`${name}\`**` : `\`${name}\``;
    const fallback = defaultOf(key);
    return `| ${shown} | ${typeOf(key)} | ${fallback === undefined ? "" : `\`${JSON.stringify(fallback)}\``} | ${(descriptionOf(key) ?? "").replaceAll("|", "\\|")} |`;
  });
  return `| key | value | default | meaning |\n|---|---|---|---|\n${rows.join("\n")}`;
}

function variantsOf(key: KeySchema): readonly KeySchema[] {
  return key.anyOf === undefined ? [key] : key.anyOf.flatMap(variantsOf);
}

function defaultOf(key: KeySchema): unknown {
  return key.default ?? variantsOf(key).find((variant) => variant.default !== undefined)?.default;
}

function descriptionOf(key: KeySchema): string | undefined {
  return key.description ?? variantsOf(key).find(({ description }) => description !== undefined)?.description;
}

function typeOf(key: KeySchema): string {
  const names = variantsOf(key).flatMap(({ type, const: only, enum: values }) => {
    if (only !== undefined) return [`\`${JSON.stringify(only)}\``];
    if (values !== undefined) return values.map((value) => `\`${value}\``);
    return [type ?? "any"].flat().flatMap((name) => nameOf(name));
  });
  return [...new Set(names)].join(", ");
}

function nameOf(type: string): readonly string[] {
  if (type === "null") return [];
  return [{ string: "text", integer: "whole number", boolean: "`true`, `false`", object: "map" }[type] ?? type];
}
