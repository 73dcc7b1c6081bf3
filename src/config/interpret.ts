import { type ZodType, z } from "zod";
import { type DetailsOf, StowageError } from "../errors/index.ts";
import { HIDDEN, isSecretKey, nearestKey, visibleKey } from "./keys.ts";
import { type ListTree, type MapTree, plainValue, type ScalarTree, type Tree } from "./yaml-tree.ts";

/** Where a part of a file stands, for messages. */
export interface Place {
  readonly file: string;
  /** Dotted path. */
  readonly key: string;
  readonly line: number;
}

type Issue = z.core.$ZodIssue;

/**
 * What `tree` says, as `schema` takes it.
 * @throws StowageError `CONFIG_INVALID` with key, file, line, reason, and a hint with the nearest right key. No value is ever shown.
 */
export function interpret<T>(tree: MapTree, schema: ZodType<T>, place: Place): T {
  const asText = new Set<Tree>();
  let result = attempt(tree, schema, place, asText);
  if (!result.success) {
    // A variable alone takes the type that its value looks like; where a text is wanted, it is the text that was meant.
    for (const { code, path, ...issue } of result.error.issues) {
      const { part } = follow(tree, path, place.line);
      const isVariable = part?.kind === "scalar" && part.variables.length > 0 && typeof part.value !== "string";
      const wantsText =
        code === "invalid_type" ? "expected" in issue && issue.expected === "string" : code === "invalid_union";
      if (isVariable && wantsText) asText.add(part);
    }
    if (asText.size > 0) result = attempt(tree, schema, place, asText);
  }
  if (result.success) return result.data;
  throw problemOf(tree, schema, result.error.issues, place);
}

function attempt<T>(tree: MapTree, schema: ZodType<T>, place: Place, asText: ReadonlySet<Tree>) {
  try {
    return schema.safeParse(plainValue(tree, asText));
  } catch (error) {
    if (error instanceof StowageError) throw error;
    // Not kept as the cause: what a schema stumbles over can stand in its message.
    throw invalid(place, "it can't be used");
  }
}

/** How many mistakes an error names. */
const MISTAKES_MAX = 20;

/** Several mistakes as one error: the first, which names the others. */
export function together(mistakes: readonly StowageError[]): StowageError {
  const [first, ...others] = mistakes.flatMap((mistake) => [mistake, ...alsoOf(mistake)]);
  if (!(first instanceof StowageError)) throw new TypeError("there is no mistake");
  const texts = others.map((other) => (typeof other === "string" ? other : textOf(other)));
  const also = texts.slice(0, MISTAKES_MAX);
  if (texts.length > MISTAKES_MAX) also.push(`and ${texts.length - MISTAKES_MAX} more`);
  const details = { ...(first.details as DetailsOf<"CONFIG_INVALID">), ...(also.length === 0 ? {} : { also }) };
  return new StowageError("CONFIG_INVALID", details, first.hint === undefined ? {} : { hint: first.hint });
}

function alsoOf({ details }: StowageError): readonly string[] {
  return Array.isArray(details.also) ? details.also : [];
}

function textOf({ details: { file, line, key, reason }, hint }: StowageError): string {
  const where = [file, line, key].filter((part) => part !== undefined && part !== "").join(":");
  return `${where}: ${reason}${hint === undefined ? "" : ` (${hint})`}`;
}

/** The one to mend first comes first: a key that is not known explains a key that is missing. */
function problemOf(tree: MapTree, schema: ZodType, issues: readonly Issue[], place: Place): StowageError {
  const problems = issues.flatMap((issue) => {
    const inner = innermost(issue);
    const paths =
      inner.code === "unrecognized_keys" ? inner.keys.map((key) => [...inner.path, key]) : [[...inner.path]];
    return paths.map((path) => ({ issue: inner, path, ...follow(tree, path, place.line) }));
  });
  problems.sort(
    (one, other) =>
      Number(other.issue.code === "unrecognized_keys") - Number(one.issue.code === "unrecognized_keys") ||
      one.line - other.line,
  );
  if (problems.length === 0) throw invalid(place, "it can't be used");
  return together(
    problems.map(({ issue, path, part, line }) => {
      const known = knownKeys(schema, path.slice(0, -1));
      const isThere = !isEmpty(part) || issue.code !== "unrecognized_keys";
      const shown = path.map((name) => (typeof name === "number" ? name : visibleKey(String(name), isThere, known)));
      const at = { file: place.file, line, key: [place.key, ...shown].filter((name) => name !== "").join(".") };
      if (issue.code === "unrecognized_keys") return unknownKey(at, String(path.at(-1)), known);
      const reason = reasonOf(issue, part);
      // A schema's own words: should they quote a secret, they are not shown.
      const isTelling = secretTexts(tree).some((text) => reason.includes(text));
      return invalid(at, isTelling ? "it can't be used" : reason, hintOf(issue, part));
    }),
  );
}

function secretTexts(tree: Tree, name = ""): readonly string[] {
  if (tree.kind === "map") return [...tree.entries].flatMap(([key, { value }]) => secretTexts(value, key));
  if (tree.kind === "list") return tree.items.flatMap((item) => secretTexts(item, name));
  return tree.text.length >= 4 && isSecretKey(name) ? [tree.text] : [];
}

/** @param known keys that may stand in the same place */
export function unknownKey(place: Place, key: string, known: readonly string[]): StowageError {
  const nearest = nearestKey(key, known);
  const hint =
    nearest !== undefined
      ? `did you mean ${nearest}?`
      : known.length === 0
        ? "nothing can be configured here: take it out"
        : `keys here are: ${known.join(", ")}`;
  const isHidden = place.key.endsWith(HIDDEN);
  return invalid(place, isHidden ? "there is a key that is not known" : "this key is not known", hint);
}

/** Of a value that may have several forms, what is wrong with the form that it is nearest to. */
function innermost(issue: Issue): Issue {
  if (issue.code !== "invalid_union") return issue;
  const branches = issue.errors.filter((branch) => branch.length > 0);
  const wrongType = (branch: readonly Issue[]) =>
    branch.some(({ code, path }) => code === "invalid_type" && path.length === 0);
  const branch = branches.find((each) => !wrongType(each));
  const [first] = branch ?? [];
  return first === undefined ? issue : innermost({ ...first, path: [...issue.path, ...first.path] } as Issue);
}

function reasonOf(issue: Issue, part: Tree | undefined): string {
  if (
    part === undefined &&
    (issue.code === "invalid_type" || issue.code === "invalid_union" || issue.code === "invalid_value")
  ) {
    return "it is missing";
  }
  if (issue.code === "invalid_type") return `it must be ${nameOf(issue.expected)}, not ${describe(part)}`;
  if (issue.code === "invalid_value") return `it must be one of: ${issue.values.map(String).join(", ")}`;
  // A union of forms that are all wrong has no words for it, unless its schema has.
  if (issue.code === "invalid_union" && issue.message === "Invalid input") return `it can't be ${describe(part)}`;
  if (issue.code === "too_small" && issue.origin === "string") return "it is too short";
  if (issue.code === "too_big" && issue.origin === "string") return "it is too long";
  if (issue.code === "too_small") return `it must be ${issue.inclusive ? "at least" : "more than"} ${issue.minimum}`;
  if (issue.code === "too_big") return `it must be ${issue.inclusive ? "at most" : "less than"} ${issue.maximum}`;
  return /^(must|is|needs|has|stands)\b/.test(issue.message) ? `it ${issue.message}` : issue.message;
}

function hintOf(issue: Issue, part: Tree | undefined): string | undefined {
  if (part?.kind !== "scalar" || issue.code !== "invalid_type") return undefined;
  if (issue.expected === "string" && part.value !== null) return "put the value in quotes";
  if (["boolean", "number", "int"].includes(issue.expected) && typeof part.value === "string") {
    return issue.expected === "boolean" ? "write true or false, without quotes" : "write the number, without quotes";
  }
  return undefined;
}

function nameOf(type: string): string {
  if (type === "object" || type === "record") return "a map";
  if (type === "array") return "a list";
  if (type === "string") return "a text";
  if (type === "int") return "a whole number";
  return type === "boolean" ? "true or false" : `a ${type}`;
}

export function describe(part: Tree | undefined): string {
  if (part === undefined) return "missing";
  if (part.kind !== "scalar") return part.kind === "map" ? "a map" : "a list";
  if (part.value === null) return "empty";
  if (typeof part.value === "boolean") return String(part.value);
  return typeof part.value === "number" ? "a number" : "a text";
}

/** Nothing, in any of the ways in which the original takes it for nothing. */
export function isEmpty(tree: Tree | undefined): boolean {
  if (tree === undefined) return true;
  return tree.kind === "scalar" ? tree.value === null : tree.kind === "map" && tree.entries.size === 0;
}

/** The part that a path leads to, and the line of the last key on the way that is there. */
function follow(
  tree: MapTree,
  path: readonly PropertyKey[],
  startLine: number,
): { readonly part: Tree | undefined; readonly line: number } {
  let part: MapTree | ListTree | ScalarTree | undefined = tree;
  let line = startLine;
  for (const name of path) {
    if (part?.kind === "map") {
      const entry = part.entries.get(String(name));
      part = entry?.value;
      line = entry?.line ?? line;
    } else if (part?.kind === "list") {
      part = part.items[Number(name)];
      line = part?.line ?? line;
    } else part = undefined;
  }
  return { part, line };
}

interface JsonSchema {
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
  readonly allOf?: readonly JsonSchema[];
  readonly default?: unknown;
}

function inputSchema(schema: ZodType): JsonSchema {
  return z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as JsonSchema;
}

/** Keys that a schema takes at the place that `path` leads to. */
export function knownKeys(schema: ZodType, path: readonly PropertyKey[] = []): readonly string[] {
  let places: readonly JsonSchema[] = variants(inputSchema(schema));
  for (const name of path) {
    places = places.flatMap(({ properties, items }) => {
      const next = typeof name === "number" ? items : properties?.[String(name)];
      return next === undefined ? [] : variants(next);
    });
  }
  return [...new Set(places.flatMap(({ properties }) => Object.keys(properties ?? {})))];
}

/** Keys that have a value when nobody gives one. */
export function defaultsOf(schema: ZodType): ReadonlyMap<string, string | number | boolean> {
  const defaults = new Map<string, string | number | boolean>();
  for (const { properties } of variants(inputSchema(schema))) {
    for (const [key, { default: value }] of Object.entries(properties ?? {})) {
      if (typeof value === "string" || typeof value === "number" || typeof value === "boolean")
        defaults.set(key, value);
    }
  }
  return defaults;
}

function variants(schema: JsonSchema): readonly JsonSchema[] {
  const inner = [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])];
  return [schema, ...inner.flatMap(variants)];
}

export function invalid({ key, file, line }: Place, reason: string, hint?: string): StowageError {
  return new StowageError("CONFIG_INVALID", { key, file, line, reason }, hint === undefined ? {} : { hint });
}
