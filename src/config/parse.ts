import { isCode, StowageError } from "../errors/index.ts";
import { readAnalyzerSection } from "./analyzer-section.ts";
import {
  analysisArchivePlace,
  analyzerPlace,
  type Configuration,
  type ConfigurationValue,
  type ConfigurationWarning,
  defaultConfiguration,
  type LayerCacheSettings,
  objectStorePlace,
  type StoreSection,
  sameStore,
} from "./configuration.ts";
import { readDatabaseSection } from "./database-section.ts";
import { describe, interpret, invalid, isEmpty, knownKeys, type Place, together } from "./interpret.ts";
import { judgeRest } from "./other-keys.ts";
import { analyzerSection, databaseArguments, databaseSection, topLevel } from "./schema.ts";
import { mapOf, readStoreSection, type StorageDriver, sourceOf } from "./store-sections.ts";
import { type DocumentOrigin, type MapEntry, type MapTree, parseTree } from "./yaml-tree.ts";

export interface ParseOptions {
  /** Path of the file, for messages. */
  readonly file: string;
  /** Values for `${NAME}`. */
  readonly variables: DocumentOrigin["variables"];
  readonly drivers: readonly StorageDriver[];
}

const catalog = "services.catalog";
const legacyNames = ["archive_driver", "use_db", "archive_data_dir"] as const;
/**
 * What the text of a `config.yaml` says.
 * @throws StowageError `CONFIG_INVALID` with key, file, line, reason and, where there is one, a hint with the nearest right key
 */
export function parseConfiguration(text: string, options: ParseOptions): Configuration {
  return new Parser(options).parse(text);
}

class Parser {
  readonly #options: ParseOptions;
  readonly #warnings: ConfigurationWarning[] = [];
  readonly #values: ConfigurationValue[] = [];
  readonly #mistakes: StowageError[] = [];
  readonly #sections: { readonly section: StoreSection; readonly place: Place }[] = [];
  /** Dotted paths whose keys were read. */
  readonly #understood = new Set<string>();

  constructor(options: ParseOptions) {
    this.#options = options;
  }

  parse(text: string): Configuration {
    const { file } = this.#options;
    const root = parseTree(text, this.#options);
    if (root === undefined || isEmpty(root)) return { ...defaultConfiguration, file };
    if (root.kind !== "map") {
      throw new StowageError("CONFIG_INVALID", {
        file,
        line: root.line,
        reason: `the file must hold a map, not ${describe(root)}`,
      });
    }
    const services = this.#attempt(() => this.#map(root, "services", "services"));
    const settings = services && this.#attempt(() => this.#map(services, "catalog", catalog));
    const objectStore = this.#attempt(() => this.#objectStore(settings));
    const analysisArchive = this.#attempt(() => this.#analysisArchive(settings));
    const otherObjectStores = this.#attempt(() => this.#otherObjectStores(settings));
    this.#attempt(() => this.#refuseOverlaps());
    const database = this.#attempt(() => this.#database(root));
    const temporaryDirectory = this.#attempt(() => this.#temporaryDirectory(root));
    const layerCache = this.#attempt(() => this.#layerCache(services));
    const warnings = this.#attempt(() => judgeRest(root, this.#understood, file));
    if (!objectStore || !otherObjectStores || !layerCache || !warnings || this.#mistakes.length > 0) {
      throw together(this.#mistakes);
    }
    for (const warning of warnings) this.#warnings.push({ file, ...warning });
    this.#warnings.sort((one, other) => one.line - other.line);
    return {
      file,
      objectStore,
      analysisArchive,
      otherObjectStores,
      database,
      temporaryDirectory,
      layerCache,
      values: this.#values,
      warnings: this.#warnings,
    };
  }

  /** `undefined` where there is a mistake, too: the others are looked for all the same. */
  #attempt<T>(read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      if (!isCode(error, "CONFIG_INVALID")) throw error;
      this.#mistakes.push(error);
      return undefined;
    }
  }

  /** The map below a key; `undefined` when there is none. */
  #map(parent: MapTree, name: string, key: string): MapTree | undefined {
    const entry = parent.entries.get(name);
    return entry === undefined || isEmpty(entry.value) ? undefined : mapOf(entry.value, this.#place(key, entry.line));
  }

  /** The first that is there of `object_store` and `archive`, its older name; else what files of the oldest kind say; else the defaults. */
  #objectStore(settings: MapTree | undefined): StoreSection {
    const found = (["object_store", "archive"] as const).filter((name) => !isEmpty(settings?.entries.get(name)?.value));
    for (const name of ["object_store", "archive", ...legacyNames]) this.#understood.add(`${catalog}.${name}`);
    const [name, ignored] = found;
    const legacy = legacyNames.filter((each) => !isEmpty(settings?.entries.get(each)?.value));
    if (ignored !== undefined)
      this.#warn(settings, ignored, `${catalog}.${ignored} is not used: ${catalog}.${name} is there`);
    if (name !== undefined) {
      for (const each of legacy)
        this.#warn(settings, each, `${catalog}.${each} is not used: ${catalog}.${name} is there`);
      return this.#section(settings?.entries.get(name), `${catalog}.${name}`);
    }
    if (settings === undefined || legacy.length === 0) return this.#section(undefined, objectStorePlace);
    return this.#legacySection(settings, legacy[0] ?? "archive_driver");
  }

  #legacySection(settings: MapTree, first: string): StoreSection {
    this.#warn(settings, first, `${legacyNames.join(", ")} are an old form: write ${objectStorePlace} instead`);
    const line = settings.entries.get(first)?.line ?? settings.line;
    const usesDatabase = settings.entries.get("use_db")?.value;
    const isDatabase = usesDatabase?.kind === "scalar" && usesDatabase.value === true;
    if (usesDatabase !== undefined && !(usesDatabase.kind === "scalar" && typeof usesDatabase.value === "boolean")) {
      throw invalid(
        this.#place(`${catalog}.use_db`, settings.entries.get("use_db")?.line ?? line),
        `it must be true or false, not ${describe(usesDatabase)}`,
      );
    }
    const part = (name: string) => settings.entries.get(name);
    const driver = isDatabase ? undefined : part("archive_driver");
    const directory = isDatabase ? undefined : part("archive_data_dir");
    const map = (entries: ReadonlyMap<string, MapEntry>): MapTree => ({ kind: "map", entries, line, size: 1 });
    const config = map(new Map(directory === undefined ? [] : [["archive_data_dir", directory]]));
    const storage = map(
      new Map<string, MapEntry>([
        ...(driver === undefined ? [] : [["name", driver] as const]),
        ["config", { line, value: config }],
      ]),
    );
    return this.#section(
      { line, value: map(new Map([["storage_driver", { line, value: storage }]])) },
      objectStorePlace,
    );
  }

  #analysisArchive(settings: MapTree | undefined): StoreSection | undefined {
    const key = analysisArchivePlace;
    this.#understood.add(key);
    const entry = settings?.entries.get("analysis_archive");
    if (!isEmpty(entry?.value)) return this.#section(entry, key);
    this.#values.push({ key, value: sameStore, source: sourceOf(entry, this.#options.file) });
    return undefined;
  }

  #otherObjectStores(settings: MapTree | undefined): readonly StoreSection[] {
    const key = `${catalog}.other_object_stores`;
    this.#understood.add(key);
    const entry = settings?.entries.get("other_object_stores");
    if (entry === undefined || isEmpty(entry.value)) return [];
    if (entry.value.kind !== "list") {
      throw invalid(
        this.#place(key, entry.line),
        `it must be a list, not ${describe(entry.value)}`,
        "begin each store with a dash: - storage_driver:",
      );
    }
    return entry.value.items.map((item, index) => {
      const place = this.#place(`${key}[${index}]`, item.line);
      if (isEmpty(item)) throw invalid(place, "it is empty", "take it out, or name its storage_driver");
      // Nobody means the default here: the database is always there.
      if (!mapOf(item, place).entries.has("storage_driver")) throw invalid(place, "it has no storage_driver");
      return this.#section({ line: item.line, value: item }, place.key);
    });
  }

  #section(entry: MapEntry | undefined, key: string): StoreSection {
    const line = entry?.line ?? 1;
    const empty: MapTree = { kind: "map", entries: new Map(), line, size: 1 };
    const { section, values, warnings } = readStoreSection(
      entry ?? { line, value: empty },
      this.#place(key, line),
      this.#options.drivers,
    );
    this.#values.push(...values);
    for (const warning of warnings) this.#warnings.push({ file: this.#options.file, ...warning });
    this.#sections.push({ section, place: this.#place(key, line) });
    return section;
  }

  /** What is stored at one place would be taken for something strange at the other, or be overwritten by it. */
  #refuseOverlaps(): void {
    for (const [index, { section, place }] of this.#sections.entries()) {
      const driver = this.#options.drivers.find(({ name }) => name === section.name);
      const outer = this.#sections
        .slice(0, index)
        .find(
          (other) => other.section.name === section.name && driver?.isOverlap?.(section.config, other.section.config),
        );
      if (outer === undefined) continue;
      const reason = `its place and that of ${outer.section.place} lie one within the other`;
      throw invalid(
        { ...place, key: `${place.key}.storage_driver.config` },
        reason,
        "choose places side by side, or the same one",
      );
    }
  }

  #database(root: MapTree): Configuration["database"] {
    const key = "credentials.database";
    const credentials = this.#map(root, "credentials", "credentials");
    const entry = credentials?.entries.get("database");
    if (entry === undefined || isEmpty(entry.value)) return undefined;
    for (const name of knownKeys(databaseSection))
      if (name !== "db_connect_args") this.#understood.add(`${key}.${name}`);
    for (const name of knownKeys(databaseArguments)) this.#understood.add(`${key}.db_connect_args.${name}`);
    const { database, values, warnings } = readDatabaseSection(entry, this.#options.file);
    this.#values.push(...values);
    for (const warning of warnings) this.#warnings.push({ file: this.#options.file, ...warning });
    return database;
  }

  #temporaryDirectory(root: MapTree): string | undefined {
    this.#understood.add("tmp_dir");
    const entry = root.entries.get("tmp_dir");
    if (entry === undefined || isEmpty(entry.value)) return undefined;
    const tree: MapTree = { kind: "map", entries: new Map([["tmp_dir", entry]]), line: entry.line, size: 1 };
    const { tmp_dir } = interpret(tree, topLevel, this.#place("", entry.line));
    this.#values.push({ key: "tmp_dir", value: tmp_dir, source: sourceOf(entry, this.#options.file) });
    return tmp_dir;
  }

  #layerCache(services: MapTree | undefined): LayerCacheSettings {
    for (const name of knownKeys(analyzerSection)) this.#understood.add(`${analyzerPlace}.${name}`);
    const section = services && this.#map(services, "analyzer", analyzerPlace);
    const { layerCache, values } = readAnalyzerSection(section, this.#options.file);
    this.#values.push(...values);
    return layerCache;
  }

  #place(key: string, line: number): Place {
    return { file: this.#options.file, key, line };
  }

  #warn(tree: MapTree | undefined, key: string, text: string): void {
    const line = tree?.entries.get(key)?.line ?? 1;
    this.#warnings.push({ file: this.#options.file, line, text });
  }
}
