import type { Document, ParsedNode } from "yaml";
import { isAlias, isMap, isScalar, isSeq, Pair, parseDocument, Scalar, stringify, YAMLMap, YAMLSeq } from "yaml";
import { StowageError } from "../errors/index.ts";
import type { Configuration } from "./configuration.ts";
import { Secret } from "./secret.ts";
import { isReference, markReferences, unmarkReferences } from "./variables.ts";

const keys = [
  ...["object_store", "archive", "archive_driver", "use_db", "archive_data_dir"],
  ...["analysis_archive", "other_object_stores"],
];
const catalog = "services.catalog";
/** Enough for any configuration, too few for a bomb of aliases. */
const nodesMax = 20_000;

/** See `readStorageText`. @throws StowageError `CONFIG_INVALID` */
export function storageText(text: string, { file, values }: Configuration, isMasked: boolean): string {
  const secrets = new Set(isMasked ? values.filter(({ value }) => value instanceof Secret).map(({ key }) => key) : []);
  const options = { schema: "failsafe", uniqueKeys: false, prettyErrors: false, logLevel: "silent" } as const;
  const document = parseDocument(markReferences(text), options);
  if (document.errors.length > 0) throw changed(file);
  const sections = new Excerpt(document, secrets, file).sections();
  return unmarkReferences(stringify(sections, { schema: "failsafe", lineWidth: 0 }));
}

class Excerpt {
  readonly #document: Document.Parsed;
  readonly #secrets: ReadonlySet<string>;
  readonly #file: string | undefined;
  #nodes = 0;

  constructor(document: Document.Parsed, secrets: ReadonlySet<string>, file: string | undefined) {
    this.#document = document;
    this.#secrets = secrets;
    this.#file = file;
  }

  sections(): YAMLMap {
    const settings = this.#entriesOf(this.#child(this.#child(this.#document.contents, "services"), "catalog"));
    const found = new YAMLMap();
    for (const key of keys) {
      const node = settings.get(key);
      if (node !== undefined) found.add(new Pair(new Scalar(key), this.#copy(node, `${catalog}.${key}`)));
    }
    if (found.items.length === 0) {
      const name = mapOf("name", new Scalar("db"));
      found.add(new Pair(new Scalar("object_store"), mapOf("storage_driver", name)));
    }
    return mapOf("services", mapOf("catalog", found));
  }

  #child(node: unknown, key: string): unknown {
    return this.#entriesOf(node).get(key);
  }

  /** The entries of a map, merge keys and aliases followed; later ones win, as when the file is read. */
  #entriesOf(node: unknown): Map<string, unknown> {
    const entries = new Map<string, unknown>();
    const map = this.#follow(node);
    if (!isMap(map)) return entries;
    const merged: unknown[] = [];
    for (const { key, value } of map.items) {
      this.#count();
      const name = isScalar(key) ? String(key.value) : "";
      if (name === "<<" && isScalar(key) && key.type === "PLAIN") merged.push(value);
      else entries.set(name, value);
    }
    for (const value of merged) {
      const source = this.#follow(value);
      for (const each of isSeq(source) ? source.items : [source]) {
        for (const [name, inner] of this.#entriesOf(each)) if (!entries.has(name)) entries.set(name, inner);
      }
    }
    return entries;
  }

  #copy(given: unknown, path: string): YAMLMap | YAMLSeq | Scalar {
    this.#count();
    const node = this.#follow(given);
    if (isMap(node)) {
      const map = new YAMLMap();
      for (const [key, value] of this.#entriesOf(node))
        map.add(new Pair(new Scalar(key), this.#copy(value, `${path}.${key}`)));
      return map;
    }
    if (isSeq(node)) {
      const list = new YAMLSeq();
      for (const [index, item] of node.items.entries()) list.add(this.#copy(item, `${path}[${index}]`));
      return list;
    }
    const { value, type } = isScalar(node) ? node : new Scalar("");
    const isHidden = this.#secrets.has(path) && !isReference(String(value));
    const copy = new Scalar(isHidden ? "********" : value);
    if (type !== undefined && !isHidden) copy.type = type as Scalar.Type;
    return copy;
  }

  #follow(node: unknown): ParsedNode | undefined {
    const target = isAlias(node) ? node.resolve(this.#document) : node;
    return (target ?? undefined) as ParsedNode | undefined;
  }

  #count(): void {
    if (++this.#nodes > nodesMax) throw changed(this.#file);
  }
}

function mapOf(key: string, value: YAMLMap | Scalar): YAMLMap {
  const map = new YAMLMap();
  map.add(new Pair(new Scalar(key), value));
  return map;
}

/** It was read and understood before. */
function changed(file: string | undefined): StowageError {
  return new StowageError("CONFIG_INVALID", {
    ...(file === undefined ? {} : { file }),
    reason: "it has changed since it was read",
  });
}
