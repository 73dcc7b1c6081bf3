import { present } from "../record.ts";
import { fieldText, nameText } from "../text.ts";

/** An installed npm package as its `package.json` describes it. */
export type NpmPackage = {
  readonly name: string;
  readonly version: string;
  readonly licenses: readonly string[];
  readonly author?: string;
  readonly description?: string;
  readonly homepage?: string;
};

const licensesMax = 20;

/**
 * Reads a `package.json`; `undefined` for one that names no package (`{"type":"module"}` stubs), text for what is no JSON object or
 * names what can't be shown. A field of a wrong
 * type costs that field.
 *
 * @see https://docs.npmjs.com/cli/configuring-npm/package-json
 */
export function parsePackageJson(text: string): NpmPackage | undefined | string {
  let json: unknown;
  try {
    json = JSON.parse(text.startsWith("\ufeff") ? text.slice(1) : text);
  } catch {
    return "not JSON";
  }
  const fields = objectOf(json);
  if (fields === undefined) return "not a JSON object";
  const name = nameText(stringOf(fields.name));
  const version = nameText(stringOf(fields.version));
  if (name === undefined || version === undefined) {
    return [fields.name, fields.version].every(isNonblank) ? "no usable name or version" : undefined;
  }
  if (!isPackageName(name)) return "the name is none that a package can have";
  return present<NpmPackage>({
    name,
    version,
    licenses: licensesOf(fields),
    author: fieldText(stringOf(fields.author)) ?? personOf(objectOf(fields.author)),
    description: fieldText(stringOf(fields.description)),
    homepage: fieldText(stringOf(fields.homepage)),
  });
}

function isNonblank(value: unknown): boolean {
  return typeof value === "string" && value.trim() !== "";
}

/** `name` or `@scope/name`. */
function isPackageName(name: string): boolean {
  const segments = name.split("/");
  return (
    segments.every((segment) => segment !== "" && segment !== "@") && segments.length === (name.startsWith("@") ? 2 : 1)
  );
}

/** `license`, a string or `{type}`; or a list of such in `licenses`, or (both wrong and common) in the other. */
function licensesOf(fields: Readonly<Record<string, unknown>>): string[] {
  const listed = [fields.license, fields.licenses].flatMap((field) =>
    Array.isArray(field) ? field.slice(0, licensesMax) : [field],
  );
  const names = listed.flatMap((one) => {
    const object = objectOf(one);
    return fieldText(stringOf(one) ?? stringOf(object?.type) ?? stringOf(object?.name)) ?? [];
  });
  return [...new Set(names)].slice(0, licensesMax);
}

function personOf(person: Readonly<Record<string, unknown>> | undefined): string | undefined {
  const name = stringOf(person?.name);
  const email = stringOf(person?.email);
  return fieldText([name, email && `<${email}>`].filter(Boolean).join(" "));
}

function stringOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined;
}
