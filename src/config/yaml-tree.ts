import { type Alias, isAlias, isMap, isScalar, isSeq, LineCounter, type ParsedNode, parseDocument } from "yaml";
import { StowageError } from "../errors/index.ts";
import { fileBytesMax } from "./configuration.ts";
import { resolvePlainScalar, type Scalar } from "./plain-scalar.ts";
import {
  hasStrayReference,
  markReferences,
  replaceReferences,
  reservedCharacters,
  unmarkReferences,
} from "./variables.ts";

/** A YAML document as a tree whose every part knows its line. Aliases and merge keys are resolved: parts may be shared, never circular. */
export type Tree = ScalarTree | MapTree | ListTree;

interface Part {
  /** Counted from 1. */
  readonly line: number;
  /** Parts in it, itself included, as often as they are referred to. */
  readonly size: number;
}

export interface ScalarTree extends Part {
  readonly kind: "scalar";
  readonly value: Scalar;
  /** As it is written, variables replaced. */
  readonly text: string;
  /** Variables whose values stand in it. */
  readonly variables: readonly string[];
}

export interface MapTree extends Part {
  readonly kind: "map";
  readonly entries: ReadonlyMap<string, MapEntry>;
}

export interface MapEntry {
  /** Line of the key. */
  readonly line: number;
  readonly value: Tree;
}

export interface ListTree extends Part {
  readonly kind: "list";
  readonly items: readonly Tree[];
}

/** Where a document comes from. */
export interface DocumentOrigin {
  /** For messages. */
  readonly file: string;
  /** Values for `${NAME}`. */
  readonly variables: Readonly<Record<string, string | undefined>>;
}

const controlCharacter = new RegExp(`[\\0-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f${reservedCharacters}]`);
const DEPTH_MAX = 50;
/** Enough for any configuration, too few for a bomb of aliases. */
const SIZE_MAX = 20_000;
/** Characters of all scalars, variables replaced. */
const TEXT_MAX = 1024 * 1024;

/**
 * Reads one YAML document; `undefined` when it is empty.
 * @throws StowageError `CONFIG_INVALID` with file and line. What stands in the file is never shown: any of it may be a secret.
 */
export function parseTree(text: string, origin: DocumentOrigin): Tree | undefined {
  if (text.length > fileBytesMax) throw invalid(origin.file, 1, `it is larger than ${fileBytesMax} bytes`);
  const lines = new LineCounter();
  const lineAt = (offset: number) => Math.max(1, lines.linePos(offset).line);
  const control = controlCharacter.exec(text);
  if (control !== null) {
    const line = text.slice(0, control.index).split("\n").length;
    throw invalid(origin.file, line, "there is a control character");
  }
  const document = parseDocument(markReferences(text), {
    // Every scalar as text, told apart by its quotes: its type is found after variables are replaced.
    schema: "failsafe",
    // The package compares each key with each other; the builder below does it with a map.
    uniqueKeys: false,
    prettyErrors: false,
    // With "silent" the package says nothing of a second document.
    logLevel: "error",
    lineCounter: lines,
  });
  // `TAG_RESOLVE_FAILED` is a warning to the package.
  const [fault] = [...document.errors, ...document.warnings].sort((one, other) => one.pos[0] - other.pos[0]);
  if (fault !== undefined) {
    throw invalid(origin.file, lineAt(fault.pos[0]), reasons[fault.code] ?? "this is not valid YAML");
  }
  return document.contents === null ? undefined : new TreeBuilder(origin, lineAt).build(document.contents, 0);
}

/** By the package's codes. Its own messages would show parts of the file. */
const reasons: Readonly<Record<string, string>> = {
  ALIAS_PROPS: "an alias can't have a tag or an anchor",
  BAD_DQ_ESCAPE: "an escape in a double-quoted text is not valid; use single quotes, or double the backslash",
  BAD_INDENT: "the indentation is not that of the lines around it",
  BAD_SCALAR_START: "a text can't begin with this character; put it in quotes",
  BLOCK_AS_IMPLICIT_KEY: "a text with `: ` in it must be in quotes",
  BLOCK_IN_FLOW: "inside { } and [ ] there can't be indented lists or maps",
  MISSING_CHAR: "a quote, a bracket, a comma or a colon is missing",
  MULTILINE_IMPLICIT_KEY: "a key goes over several lines; perhaps a colon is missing",
  MULTIPLE_ANCHORS: "there are several anchors",
  MULTIPLE_DOCS: "the file has several documents (`---`); one is wanted",
  MULTIPLE_TAGS: "there are several tags",
  RESOURCE_EXHAUSTION: "it is nested too deeply",
  TAB_AS_INDENT: "a tab is used for indentation; use spaces",
  TAG_RESOLVE_FAILED: "tags (`!name`) are not supported",
  UNEXPECTED_TOKEN: "something unexpected stands here; perhaps a quote or a bracket is missing",
};

const halfCharacter = "an escape (`\\u…`) stands for half of a character only";
const noLiteral = `a value with \${…} in it must itself come from a variable`;

class TreeBuilder {
  readonly #origin: DocumentOrigin;
  readonly #lineAt: (offset: number) => number;
  /** `undefined` while the part that the anchor names is being built. */
  readonly #anchors = new Map<string, Tree | undefined>();
  #textLength = 0;

  constructor(origin: DocumentOrigin, lineAt: (offset: number) => number) {
    this.#origin = origin;
    this.#lineAt = lineAt;
  }

  build(node: ParsedNode, depth: number): Tree {
    const line = this.#lineAt(node.range[0]);
    if (depth > DEPTH_MAX) throw this.#invalid(line, `it is nested deeper than ${DEPTH_MAX} levels`);
    if (isAlias(node)) return this.#follow(node, line);
    if (node.tag !== undefined && !/^tag:yaml\.org,2002:(str|map|seq)$/.test(node.tag)) {
      throw this.#invalid(line, "tags (`!name`) are not supported");
    }
    if (node.anchor !== undefined) this.#anchors.set(node.anchor, undefined);
    const tree = this.#content(node, line, depth);
    if (node.anchor !== undefined) this.#anchors.set(node.anchor, tree);
    if (tree.size > SIZE_MAX) throw this.#tooMany(line);
    return tree;
  }

  #content(node: Exclude<ParsedNode, Alias>, line: number, depth: number): Tree {
    if (isScalar(node)) {
      return this.#scalar(String(node.value ?? ""), node.type === "PLAIN" && node.tag === undefined, line);
    }
    if (isSeq(node)) {
      const items = node.items.map((item) => this.build(item as ParsedNode, depth + 1));
      return { kind: "list", items, line, size: items.reduce((sum, { size }) => sum + size, 1) };
    }
    if (!isMap(node)) throw this.#invalid(line, "this is not valid YAML");
    const own = new Map<string, MapEntry>();
    const merged = new Map<string, MapEntry>();
    let size = 1;
    for (const { key, value } of node.items) {
      const keyLine = this.#lineAt((key as ParsedNode).range[0]);
      if (!isScalar(key)) throw this.#invalid(keyLine, "a key must be a plain text");
      const name = unmarkReferences(String(key.value ?? ""));
      if (!name.isWellFormed()) throw this.#invalid(keyLine, halfCharacter);
      const tree = value === null ? this.#scalar("", true, keyLine) : this.build(value as ParsedNode, depth + 1);
      size += tree.size;
      // Not only at its end: what is merged costs time here.
      if (size > SIZE_MAX) throw this.#tooMany(keyLine);
      if (name === "<<" && key.type === "PLAIN") {
        for (const [inherited, entry] of this.#mergeable(tree, keyLine)) {
          if (!merged.has(inherited)) merged.set(inherited, entry);
        }
      } else {
        const earlier = own.get(name);
        if (earlier !== undefined) {
          throw this.#invalid(keyLine, `the same key stands here twice; the first time in line ${earlier.line}`);
        }
        own.set(name, { line: keyLine, value: tree });
      }
    }
    // What a map says itself counts before what it inherits.
    return { kind: "map", entries: new Map([...merged, ...own]), line, size };
  }

  #mergeable(tree: Tree, line: number): Iterable<[string, MapEntry]> {
    if (tree.kind === "map") return tree.entries;
    if (tree.kind === "list") return tree.items.flatMap((item) => [...this.#mergeable(item, line)]);
    throw this.#invalid(line, "`<<` takes a map, or a list of maps");
  }

  #follow(alias: Alias, line: number): Tree {
    if (!this.#anchors.has(alias.source))
      throw this.#invalid(line, "an alias (`*name`) has no anchor (`&name`) before it");
    const tree = this.#anchors.get(alias.source);
    if (tree === undefined) throw this.#invalid(line, "an alias (`*name`) refers to what it stands in");
    return tree;
  }

  /** Variables are replaced here, after parsing: a value with `: `, `#` or line breaks in it can't change the document. */
  #scalar(written: string, isPlain: boolean, line: number): ScalarTree {
    const variables: string[] = [];
    if (hasStrayReference(written)) {
      throw this.#invalid(line, `a name in \${…} can't have quotes, braces or line breaks`, noLiteral);
    }
    const text = replaceReferences(written, (name) => {
      if (name === "") throw this.#invalid(line, "a reference without a name names no environment variable", noLiteral);
      const value = Object.hasOwn(this.#origin.variables, name) ? this.#origin.variables[name] : undefined;
      if (value === undefined) throw this.#unset(name, line);
      if (!variables.includes(name)) variables.push(name);
      return value;
    });
    this.#textLength += text.length;
    if (this.#textLength > TEXT_MAX) throw this.#invalid(line, "with its variables replaced, the file is too large");
    // Nothing can be made of it: neither bytes nor a part of a URL.
    if (!text.isWellFormed()) throw this.#invalid(line, halfCharacter);
    return { kind: "scalar", value: isPlain ? resolvePlainScalar(text) : text, text, variables, line, size: 1 };
  }

  #unset(name: string, line: number): StowageError {
    // What no shell takes for a name may be a part of a secret that happens to look like a reference.
    if (!/^[\w.-]{1,100}$/.test(name)) {
      return this.#invalid(line, `the environment variable that \${…} names is not set`, noLiteral);
    }
    const hint = `set ${name}, or write the value into the file`;
    return this.#invalid(line, `the environment variable ${name} is not set`, hint);
  }

  #tooMany(line: number): StowageError {
    return this.#invalid(line, `it has more than ${SIZE_MAX} values`);
  }

  #invalid(line: number, reason: string, hint?: string): StowageError {
    return invalid(this.#origin.file, line, reason, hint);
  }
}

/** The tree as plain data; scalars in `asText` as they are written, whatever their type. */
export function plainValue(tree: Tree, asText?: ReadonlySet<Tree>): unknown {
  if (tree.kind === "scalar") return asText?.has(tree) ? tree.text : tree.value;
  if (tree.kind === "list") return tree.items.map((item) => plainValue(item, asText));
  // Own properties whatever their name, `__proto__` too.
  return Object.fromEntries([...tree.entries].map(([key, { value }]) => [key, plainValue(value, asText)]));
}

function invalid(file: string, line: number, reason: string, hint?: string): StowageError {
  return new StowageError("CONFIG_INVALID", { file, line, reason }, hint === undefined ? {} : { hint });
}
