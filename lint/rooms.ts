/**
 * The rooms of `src/`: what each may import. What has no line may import nothing.
 * `.dependency-cruiser.mjs` turns the table into rules; `dependency-rules.test.ts` plants a fault for each.
 */
interface Room {
  /** Other rooms, through their `index.ts` only. */
  readonly rooms: readonly string[];
  /** Node's own modules, without `node:`. */
  readonly node: readonly string[];
  readonly packages: readonly string[];
}

const base = ["errors", "config", "runtime"];

export const rooms: Readonly<Record<string, Room>> = {
  errors: { rooms: [], node: [], packages: [] },
  config: { rooms: ["errors"], node: ["fs", "fs/promises", "os", "path"], packages: ["yaml", "zod"] },
  runtime: {
    rooms: ["errors", "config"],
    node: ["diagnostics_channel", "fs/promises", "os", "path", "v8"],
    packages: ["pino"],
  },
  db: {
    rooms: base,
    node: ["child_process", "crypto", "fs", "fs/promises", "module", "path", "sqlite", "timers/promises"],
    packages: ["kysely", "pg"],
  },
  oci: {
    rooms: base,
    node: [
      ...["child_process", "crypto", "dns", "dns/promises", "fs", "fs/promises", "module", "net", "path"],
      ...["stream", "stream/promises", "timers/promises", "zlib"],
    ],
    packages: ["undici", "zod"],
  },
  layercache: {
    rooms: [...base, "oci"],
    node: ["crypto", "fs", "fs/promises", "path", "sqlite", "stream"],
    packages: [],
  },
  layer: { rooms: [...base, "oci"], node: ["buffer", "crypto", "stream", "stream/promises", "zlib"], packages: [] },
  catalogers: { rooms: ["errors", "layer"], node: [], packages: ["packageurl-js"] },
  objects: {
    rooms: [...base, "db"],
    node: ["crypto", "stream", "stream/promises", "util", "zlib"],
    packages: ["kysely", "zod"],
  },
  images: {
    rooms: [...base, "db", "objects", "layer"],
    node: ["stream", "stream/promises"],
    packages: ["kysely"],
  },
  analysis: {
    rooms: [...base, "db", "oci", "layer", "catalogers", "objects", "images"],
    node: ["crypto", "events", "fs", "os", "path", "stream", "stream/promises", "v8", "worker_threads"],
    packages: ["kysely", "piscina"],
  },
  migration: { rooms: [...base, "db", "objects"], node: [], packages: ["kysely"] },
  app: {
    rooms: [...base, "db", "oci", "layercache", "layer", "catalogers", "objects", "images", "analysis", "migration"],
    node: ["fs/promises", "os", "path"],
    packages: [],
  },
  cli: {
    rooms: [...base, "oci", "layercache", "layer", "objects", "images", "analysis", "migration", "app"],
    node: ["fs", "fs/promises", "path", "readline/promises", "stream", "stream/promises"],
    packages: ["commander", "log-update", "picocolors", "table", "zod"],
  },
};

/** Files with rights of their own beside those of their room. */
const exceptions: Readonly<Record<string, Omit<Room, "rooms">>> = {
  // Entries and kept files that don't fit into memory go to files under names of ours; nothing else of an image touches the file system.
  "layer/spill.ts": { node: ["fs", "fs/promises", "path", "os"], packages: [] },
};

/** Storage drivers, each with what it needs beside the contract. */
export const drivers: Readonly<Record<string, Room>> = {
  db: { rooms: [...base, "db"], node: ["crypto", "stream", "stream/promises"], packages: ["kysely", "zod"] },
  s3: {
    rooms: base,
    node: ["crypto", "fs", "fs/promises", "module", "stream", "stream/consumers", "stream/promises", "timers/promises"],
    packages: ["@aws-sdk/client-s3", "@aws-sdk/credential-providers", "undici", "zod"],
  },
  localfs: {
    rooms: base,
    node: ["crypto", "fs", "fs/promises", "os", "path", "stream", "stream/promises"],
    packages: ["zod"],
  },
  swift: {
    rooms: base,
    node: ["crypto", "fs", "fs/promises", "stream", "stream/consumers", "stream/promises", "timers/promises"],
    packages: ["undici", "zod"],
  },
};

/** What may import anything, and what the product may not import. */
export const tests = "[.]test[.]ts$|^(bench|demo|docs|lint|test)/";

interface Source extends Room {
  readonly from: { readonly path: string; readonly pathNot?: string };
  readonly path: string;
}

const driversPath = "^src/objects/drivers/";
const never = "^$";

/** Everything that has rights, as paths that dependency-cruiser can match. */
export const sources: readonly Source[] = [
  ...Object.entries(rooms).map(([name, room]) => ({
    ...room,
    path: `^src/${name}/`,
    from: { path: `^src/${name}/`, pathNot: `${driversPath}|${tests}` },
  })),
  ...Object.entries(drivers).map(([name, room]) => ({
    ...room,
    path: `^src/objects/(drivers/${name}/|driver[.]ts$)`,
    from: { path: `${driversPath}${name}/`, pathNot: tests },
  })),
  ...Object.entries(exceptions).map(([file, rights]) => ({
    ...rights,
    rooms: [],
    path: never,
    from: { path: `^src/${literal(file)}$` },
  })),
  // The composition root chooses among drivers. The default one can be opened without loading what reads configurations.
  {
    rooms: [],
    node: [],
    packages: [],
    path: `${driversPath}([^/]+/index|db/definition)[.]ts$`,
    from: { path: "^src/app/", pathNot: tests },
  },
];

export const ownFiles = (source: Source) => source.path;
export const faces = ({ rooms: names }: Source) => oneOf(names, (list) => `^src/(${list})/index[.]ts$`);
export const packagesOf = ({ packages }: Source) => oneOf(packages.map(literal), (list) => `^node_modules/(${list})/`);
export const builtIn = ({ node }: Source) => oneOf(node, (list) => `^(node:)?(${list})$`);

function oneOf(names: readonly string[], pattern: (list: string) => string): string {
  return names.length === 0 ? never : pattern(names.join("|"));
}

function literal(text: string): string {
  return text.replaceAll(".", "[.]");
}
