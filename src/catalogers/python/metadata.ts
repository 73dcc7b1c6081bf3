import { present } from "../record.ts";
import { fieldText, linesOf, nameText } from "../text.ts";

/** An installed Python distribution as its metadata describes it. */
export type PythonPackage = {
  readonly name: string;
  readonly version: string;
  readonly licenses: readonly string[];
  readonly author?: string;
  readonly description?: string;
  readonly homepage?: string;
};

const CLASSIFIER = "License :: ";
const licensesMax = 20;
/** More continuation lines than any short field has are not kept. */
const FIELD_LINES_MAX = 50;
const FIELDS: ReadonlySet<string> = new Set([
  "name",
  "version",
  "license-expression",
  "license",
  "author",
  "author-email",
  "maintainer",
  "maintainer-email",
  "summary",
  "home-page",
]);
/** A `License` field may hold a whole licence; that is no name. */
const LICENSE_CHARACTERS_MAX = 200;

/**
 * Reads a `METADATA` or `PKG-INFO` file: header lines as in mail, up to the first blank line. Of a field that may stand once the last counts;
 * `UNKNOWN` is what old tools wrote for none.
 *
 * @see https://packaging.python.org/en/latest/specifications/core-metadata/
 */
export function parseMetadata(text: string): PythonPackage | undefined {
  const fields = new Map<string, string>();
  const classifiers: string[] = [];
  const projectUrls: string[] = [];
  let key = "";
  let value: string[] = [];
  const close = () => {
    const whole = value.join("\n").trim();
    if (key === "classifier") {
      if (whole.startsWith(CLASSIFIER) && classifiers.length < licensesMax) classifiers.push(whole);
    } else if (key === "project-url") {
      if (projectUrls.length < licensesMax) projectUrls.push(whole);
    } else if (FIELDS.has(key) && whole !== "UNKNOWN") fields.set(key, whole);
  };
  for (const line of linesOf(text)) {
    if (line === "") break;
    if (line.startsWith(" ") || line.startsWith("\t")) {
      if (value.length < FIELD_LINES_MAX) value.push(line);
      continue;
    }
    close();
    const colon = line.indexOf(":");
    key = colon < 0 ? "" : line.slice(0, colon).trim().toLowerCase();
    value = [line.slice(colon + 1)];
  }
  close();

  const name = nameText(fields.get("name"));
  const version = nameText(fields.get("version"));
  if (name === undefined || version === undefined) return undefined;
  return present<PythonPackage>({
    name,
    version,
    licenses: licensesOf(fields, classifiers),
    author: fieldText(personOf(fields, "author") ?? personOf(fields, "maintainer")),
    description: fieldText(fields.get("summary")),
    homepage: fieldText(fields.get("home-page")) ?? homepageOf(projectUrls),
  });
}

function licensesOf(fields: ReadonlyMap<string, string>, classifiers: readonly string[]): string[] {
  const expression = fieldText(fields.get("license-expression"));
  if (expression !== undefined) return [expression];
  const license = fields.get("license");
  const isName = license !== undefined && license.length <= LICENSE_CHARACTERS_MAX && !license.includes("\n");
  const named = isName ? fieldText(license) : undefined;
  if (named !== undefined) return [named];
  return [...new Set(classifiers.flatMap((one) => fieldText(one.slice(one.lastIndexOf("::") + 2)) ?? []))];
}

function personOf(fields: ReadonlyMap<string, string>, role: "author" | "maintainer"): string | undefined {
  const name = fields.get(role);
  const email = fields.get(`${role}-email`);
  if (name !== undefined && name !== "" && email !== undefined && email !== "") {
    return email.includes("<") ? email : `${name} <${email}>`;
  }
  return name || email || undefined;
}

/** `Homepage, https://…` */
function homepageOf(projectUrls: readonly string[]): string | undefined {
  for (const one of projectUrls) {
    const comma = one.indexOf(",");
    if (/^home-?page$/i.test(one.slice(0, Math.max(comma, 0)).replaceAll(" ", "")))
      return fieldText(one.slice(comma + 1));
  }
  return undefined;
}
