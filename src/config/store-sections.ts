import type { ZodType } from "zod";
import type { Compression, ConfigurationValue, Source, StoreSection } from "./configuration.ts";
import { defaultCompression, defaultDriver } from "./configuration.ts";
import { defaultsOf, describe, interpret, invalid, isEmpty, type Place } from "./interpret.ts";
import { isSecretKey, nearestKey, visibleKey } from "./keys.ts";
import { storeSection } from "./schema.ts";
import { Secret } from "./secret.ts";
import type { MapEntry, MapTree, ScalarTree, Tree } from "./yaml-tree.ts";

/** What has to be known of a storage driver to read its section. */
export interface StorageDriver {
  readonly name: string;
  readonly aliases: readonly string[];
  /** The shape of `storage_driver.config`. */
  readonly schema: ZodType;
  /** Whether the places of two configurations are not one, and yet one lies within the other. */
  isOverlap?(one: unknown, other: unknown): boolean;
}

/** A section as it stands in the file. */
export interface ReadSection {
  readonly section: StoreSection;
  readonly values: readonly ConfigurationValue[];
  /** What the file asks for and nothing does. */
  readonly warnings: readonly { readonly line: number; readonly text: string }[];
}

/**
 * A section that chooses a store.
 * @throws StowageError `CONFIG_INVALID`
 */
export function readStoreSection(entry: MapEntry, place: Place, drivers: readonly StorageDriver[]): ReadSection {
  const tree = mapOf(entry.value, place);
  const nested = (name: string): [MapTree, Place] | undefined => {
    const inner = tree.entries.get(name);
    if (inner === undefined || (name === "compression" && isEmpty(inner.value))) return undefined;
    const at = { ...place, key: `${place.key}.${name}`, line: inner.line };
    return [mapOf(inner.value, at), at];
  };
  const driverTree = nested("storage_driver");
  const compressionTree = nested("compression");
  const { compression, storage_driver, enabled, verify_content_digests } = interpret(tree, storeSection, place);
  const driver = findDriver(storage_driver?.name ?? defaultDriver, driverTree, place, drivers);
  const config = driverTree?.[0].entries.get("config");
  const configPlace: Place = {
    ...place,
    key: `${place.key}.storage_driver.config`,
    line: config?.line ?? driverTree?.[1].line ?? place.line,
  };
  const configTree =
    config === undefined || isEmpty(config.value) ? emptyMap(configPlace.line) : mapOf(config.value, configPlace);
  const parsed = interpret(configTree, driver.schema, configPlace);
  const chosen: Compression = {
    enabled: compression?.enabled ?? defaultCompression.enabled,
    minSizeKbytes: compression?.min_size_kbytes ?? defaultCompression.minSizeKbytes,
    algorithm: compression?.algorithm ?? defaultCompression.algorithm,
  };
  const sourceIn = (map: MapTree | undefined, key: string) => sourceOf(map?.entries.get(key), place.file);
  const warnings = [
    ...(enabled === false
      ? [warning(tree, "enabled", `${place.key}.enabled: false has no effect; take the section out`)]
      : []),
    ...(verify_content_digests === false
      ? [
          warning(
            tree,
            "verify_content_digests",
            `${place.key}.verify_content_digests: false has no effect; digests are always checked`,
          ),
        ]
      : []),
  ];
  return {
    section: { place: place.key, name: driver.name, config: parsed, compression: chosen },
    values: [
      {
        key: `${place.key}.compression.enabled`,
        value: chosen.enabled,
        source: sourceIn(compressionTree?.[0], "enabled"),
      },
      {
        key: `${place.key}.compression.min_size_kbytes`,
        value: chosen.minSizeKbytes,
        source: sourceIn(compressionTree?.[0], "min_size_kbytes"),
      },
      {
        key: `${place.key}.compression.algorithm`,
        value: chosen.algorithm,
        source: sourceIn(compressionTree?.[0], "algorithm"),
      },
      { key: `${place.key}.storage_driver.name`, value: driver.name, source: sourceIn(driverTree?.[0], "name") },
      ...valuesOf(configTree, configPlace, secretsIn(parsed)),
      ...[...defaultsOf(driver.schema)]
        .filter(([key]) => !configTree.entries.has(key))
        .map(
          ([key, value]): ConfigurationValue => ({
            key: `${configPlace.key}.${key}`,
            value,
            source: { kind: "default" },
          }),
        ),
    ],
    warnings,
  };
}

function findDriver(
  name: string,
  driverTree: readonly [MapTree, Place] | undefined,
  place: Place,
  drivers: readonly StorageDriver[],
): StorageDriver {
  const driver = drivers.find((each) => each.name === name || each.aliases.includes(name));
  if (driver !== undefined) return driver;
  const names = drivers.flatMap((each) => [each.name, ...each.aliases]);
  const nearest = nearestKey(name, names);
  const line = driverTree?.[0].entries.get("name")?.line ?? place.line;
  throw invalid(
    { ...place, key: `${place.key}.storage_driver.name`, line },
    `there is no such driver: ${visibleKey(name, true, names)}`,
    `${nearest === undefined ? "" : `did you mean ${nearest}? `}drivers are: ${names.join(", ")}`,
  );
}

/** @throws StowageError `CONFIG_INVALID` */
export function mapOf(tree: Tree, place: Place): MapTree {
  if (tree.kind === "map") return tree;
  throw invalid(place, `it must be a map, not ${describe(tree)}`, "write its keys below it, indented");
}

export function sourceOf(entry: MapEntry | undefined, file: string): Source {
  if (entry === undefined) return { kind: "default" };
  const { value: tree, line } = entry;
  return tree.kind === "scalar"
    ? { kind: "file", file, line: tree.line, variables: tree.variables }
    : { kind: "file", file, line, variables: [] };
}

function emptyMap(line: number): MapTree {
  return { kind: "map", entries: new Map(), line, size: 1 };
}

function warning(tree: MapTree, key: string, text: string): { readonly line: number; readonly text: string } {
  return { line: tree.entries.get(key)?.line ?? tree.line, text };
}

/** Each scalar below a map, with those that are secret as secrets. */
function valuesOf(tree: Tree, place: Place, secrets: readonly Secret[], name = ""): readonly ConfigurationValue[] {
  if (tree.kind === "map") {
    return [...tree.entries].flatMap(([key, { value }]) =>
      valuesOf(value, { ...place, key: `${place.key}.${visibleKey(key, true)}` }, secrets, key),
    );
  }
  if (tree.kind === "list") {
    return tree.items.flatMap((item, index) =>
      valuesOf(item, { ...place, key: `${place.key}[${index}]` }, secrets, name),
    );
  }
  const source = sourceOf({ line: tree.line, value: tree }, place.file);
  return [{ key: place.key, value: isSecret(tree, name, secrets) ? new Secret(tree.text) : tree.value, source }];
}

/** What the schema made a secret of; and, whatever the schema says, what has the name of one. */
function isSecret(tree: ScalarTree, name: string, secrets: readonly Secret[]): boolean {
  if (tree.value === null || typeof tree.value === "boolean") return false;
  return isSecretKey(name) || secrets.some((secret) => secret.isEqualTo(tree.text));
}

function secretsIn(value: unknown, depth = 0): readonly Secret[] {
  if (value instanceof Secret) return [value];
  if (typeof value !== "object" || value === null || depth > 8) return [];
  return Object.values(value).flatMap((inner) => secretsIn(inner, depth + 1));
}
