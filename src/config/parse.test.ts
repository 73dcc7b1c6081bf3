import { describe, expect, it } from "vitest";
import { z } from "zod";
import { drivers } from "../app/drivers.ts";
import type { StowageError } from "../errors/index.ts";
import type { Configuration, ConfigurationValue } from "./configuration.ts";
import { parseConfiguration } from "./parse.ts";
import { Secret } from "./secret.ts";

const reference = (name: string) => `\${${name}}`;

function parse(text: string, variables: Record<string, string> = {}): Configuration {
  return parseConfiguration(text, { file: "config.yaml", variables, drivers });
}

/** Key, line, reason and hint of the failure. */
function failure(text: string, variables: Record<string, string> = {}): readonly (string | number | undefined)[] {
  try {
    parse(text, variables);
  } catch (error) {
    const { code, details, hint } = error as StowageError;
    expect({ code, file: details.file }).toEqual({ code: "CONFIG_INVALID", file: "config.yaml" });
    return [details.key, details.line, details.reason, hint] as readonly (string | number | undefined)[];
  }
  throw new Error("it was accepted");
}

/** A file with these lines below `services.catalog`, the first of which is line 3. */
const catalog = (...lines: string[]) => ["services:", "  catalog:", ...lines.map((line) => `    ${line}`)].join("\n");
const store = (driver: string) => catalog("object_store:", `  storage_driver: ${driver}`);
const database = (...lines: string[]) =>
  ["credentials:", "  database:", ...lines.map((line) => `    ${line}`)].join("\n");

const place = "services.catalog.object_store";
const s3 = (rest: string) => store(`{name: s3, config: {${rest}}}`);

describe("which section counts", () => {
  const localfs = (directory: string) => `{storage_driver: {name: localfs, config: {archive_data_dir: ${directory}}}}`;

  it.each([
    "",
    "# nothing",
    "services:",
    "services: {}",
    "services: {catalog: }",
    catalog("object_store: {}"),
    catalog("object_store:"),
  ])("nothing is the database: %j", (text) => {
    expect(parse(text)).toMatchObject({
      file: "config.yaml",
      objectStore: {
        place,
        name: "db",
        config: {},
        compression: { enabled: false, minSizeKbytes: 100, algorithm: "zstd" },
      },
      analysisArchive: undefined,
      otherObjectStores: [],
      database: undefined,
      warnings: [],
    });
  });

  it("archive is the older name of object_store", () => {
    expect(parse(catalog(`archive: ${localfs("/a")}`)).objectStore).toMatchObject({
      place: "services.catalog.archive",
      config: { archive_data_dir: "/a" },
    });
    const beside = parse(catalog("object_store: {}", `archive: ${localfs("/a")}`));
    expect(beside.objectStore).toMatchObject({ config: { archive_data_dir: "/a" } });
    const both = parse(catalog(`object_store: ${localfs("/o")}`, `archive: ${localfs("/a")}`));
    expect(both.objectStore).toMatchObject({ config: { archive_data_dir: "/o" } });
    expect(both.warnings).toEqual([
      {
        file: "config.yaml",
        line: 4,
        text: "services.catalog.archive is not used: services.catalog.object_store is there",
      },
    ]);
  });

  it("missing parts are the defaults, in both stores", () => {
    const { objectStore, analysisArchive } = parse(
      catalog("object_store: {compression: {enabled: true}}", `analysis_archive: ${localfs("/a")}`),
    );
    expect(objectStore).toMatchObject({ name: "db", compression: { enabled: true, minSizeKbytes: 100 } });
    expect(analysisArchive).toMatchObject({ name: "localfs", compression: { enabled: false, minSizeKbytes: 100 } });
    expect(parse(catalog("analysis_archive: {compression: {algorithm: gzip}}")).analysisArchive).toMatchObject({
      name: "db",
      compression: { enabled: false, algorithm: "gzip" },
    });
    expect(parse(catalog("object_store: {compression: , storage_driver: {name: db, config: }}")).objectStore.name).toBe(
      "db",
    );
  });

  it("db2 is another name of db", () => {
    expect(parse(store("{name: db2}")).objectStore.name).toBe("db");
  });

  it("the oldest form is read, with a warning", () => {
    const old = parse(catalog("archive_driver: localfs", "use_db: false", "archive_data_dir: /a"));
    expect(old.objectStore).toMatchObject({ name: "localfs", config: { archive_data_dir: "/a" } });
    expect(old.warnings).toMatchObject([
      { line: 3, text: expect.stringContaining("write services.catalog.object_store instead") },
    ]);
    expect(parse(catalog("archive_driver: localfs", "use_db: true", "archive_data_dir: /a")).objectStore.name).toBe(
      "db",
    );
    const ignored = parse(catalog("object_store: {storage_driver: {name: db}}", "archive_driver: s3"));
    expect(ignored.objectStore.name).toBe("db");
    expect(ignored.warnings).toMatchObject([{ line: 4, text: expect.stringContaining("archive_driver is not used") }]);
    expect(failure(catalog("archive_driver: localfs"))).toEqual([
      `${place}.storage_driver.config.archive_data_dir`,
      3,
      "it is missing",
      undefined,
    ]);
    expect(failure(catalog("use_db: 'yes'"))[2]).toBe("it must be true or false, not a text");
  });

  it("other_object_stores is a list", () => {
    const { otherObjectStores } = parse(
      catalog("other_object_stores:", `- ${localfs("/a")}`, "- storage_driver: {name: db}"),
    );
    expect(otherObjectStores.map((each) => [each.place, each.name])).toEqual([
      ["services.catalog.other_object_stores[0]", "localfs"],
      ["services.catalog.other_object_stores[1]", "db"],
    ]);
    expect(failure(catalog(`other_object_stores: ${localfs("/a")}`))[2]).toBe("it must be a list, not a map");
    expect(failure(catalog("other_object_stores:", "- storage_driver: {name: db}", "- "))).toMatchObject([
      "services.catalog.other_object_stores[1]",
      5,
      "it is empty",
      "take it out, or name its storage_driver",
    ]);
    expect(failure(catalog("other_object_stores:", "- compression: {}"))[2]).toBe("it has no storage_driver");
  });

  it("keys of no effect that say otherwise are told of", () => {
    const { warnings } = parse(
      catalog("analysis_archive: {enabled: false, verify_content_digests: false, storage_driver: {name: db}}"),
    );
    expect(warnings.map(({ text }) => text)).toEqual([
      "services.catalog.analysis_archive.enabled: false has no effect; take the section out",
      "services.catalog.analysis_archive.verify_content_digests: false has no effect; digests are always checked",
    ]);
  });
});

describe("a storage section", () => {
  it.each([
    [catalog("object_store: db"), place, 3, "it must be a map, not a text"],
    [catalog("object_store: false"), place, 3, "it must be a map, not false"],
    [catalog("object_store: []"), place, 3, "it must be a map, not a list"],
    [store("null"), `${place}.storage_driver`, 4, "it must be a map, not empty"],
    [store("s3"), `${place}.storage_driver`, 4, "it must be a map, not a text"],
    [store("{name: }"), `${place}.storage_driver.name`, 4, "it must be a text, not empty"],
    [
      store("{name: 3}"),
      `${place}.storage_driver.name`,
      4,
      "it must be a text, not a number",
      "put the value in quotes",
    ],
    [
      store("{name: S3}"),
      `${place}.storage_driver.name`,
      4,
      "there is no such driver: S3",
      /^did you mean s3\? drivers are: db, db2, /,
    ],
    [
      store("{name: azure}"),
      `${place}.storage_driver.name`,
      4,
      "there is no such driver: azure",
      /^drivers are: db, db2, /,
    ],
    [store("{nam: s3}"), `${place}.storage_driver.nam`, 4, "this key is not known", "did you mean name?"],
    [store("{name: s3, config: here}"), `${place}.storage_driver.config`, 4, "it must be a map, not a text"],
    [
      s3("bucket: 12"),
      `${place}.storage_driver.config.bucket`,
      4,
      "it must be a text, not a number",
      "put the value in quotes",
    ],
    [s3("iamauto: true"), `${place}.storage_driver.config.bucket`, 4, "it is missing"],
    [
      s3("iamauto: 'true', bucket: bbb"),
      `${place}.storage_driver.config.iamauto`,
      4,
      "it must be true or false, not a text",
      "write true or false, without quotes",
    ],
    [
      s3("iamauto: true, buckets: bbb"),
      `${place}.storage_driver.config.buckets`,
      4,
      "this key is not known",
      "did you mean bucket?",
    ],
    [
      s3("accesskey: a, bucket: bbb"),
      `${place}.storage_driver.config.accesskey`,
      4,
      "this key is not known",
      "did you mean access_key?",
    ],
    [
      s3("iamauto: true, bucket: bbb, colour: red"),
      `${place}.storage_driver.config.colour`,
      4,
      "this key is not known",
      /^keys here are: access_key, /,
    ],
    [
      store("{name: db, config: {url: x}}"),
      `${place}.storage_driver.config.url`,
      4,
      "this key is not known",
      "nothing can be configured here: take it out",
    ],
    [
      catalog("object_store:", "  compression: {enabled: 'true'}"),
      `${place}.compression.enabled`,
      4,
      "it must be true or false, not a text",
    ],
    [
      catalog("object_store:", "  compression: {enabled: 1}"),
      `${place}.compression.enabled`,
      4,
      "it must be true or false, not a number",
    ],
    [catalog("object_store:", "  compression: true"), `${place}.compression`, 4, "it must be a map, not true"],
    [
      catalog("object_store:", "  compression:", "    min_size_kbytes: '100'"),
      `${place}.compression.min_size_kbytes`,
      5,
      "it must be a number, not a text",
      "write the number, without quotes",
    ],
    [
      catalog("object_store:", "  compression: {min_size_kbytes: -1}"),
      `${place}.compression.min_size_kbytes`,
      4,
      "it must be at least 0",
    ],
    [
      catalog("object_store:", "  compression: {min_size_kb: 1}"),
      `${place}.compression.min_size_kb`,
      4,
      "this key is not known",
      "did you mean min_size_kbytes?",
    ],
    [
      catalog("object_store:", "  compression: {algorithm: lz4}"),
      `${place}.compression.algorithm`,
      4,
      "it must be one of: zstd, gzip",
    ],
    [
      catalog("object_store:", "  storage_drivers: {}"),
      `${place}.storage_drivers`,
      4,
      "this key is not known",
      "did you mean storage_driver?",
    ],
  ])("%j", (text, key, line, reason, hint?: string | RegExp) => {
    const [foundKey, foundLine, foundReason, foundHint] = failure(text);
    expect([foundKey, foundLine, foundReason]).toEqual([key, line, reason]);
    if (typeof hint === "string") expect(foundHint).toBe(hint);
    if (hint instanceof RegExp) expect(foundHint).toMatch(hint);
  });

  it.each([
    ["object_store: {}", "object_store", 1, "services.catalog.object_store"],
    ["services: {object_store: {}}", "services.object_store", 1, "services.catalog.object_store"],
    ["services: {analysis_archive: }", "services.analysis_archive", 1, "services.catalog.analysis_archive"],
    [
      "services: {policy_engine: {object_store: {}}}",
      "services.policy_engine.object_store",
      1,
      "services.catalog.object_store",
    ],
    ["archive: {storage_driver: {name: db}}", "archive", 1, "services.catalog.archive"],
    [
      catalog("storage_driver: {name: db}"),
      "services.catalog.storage_driver",
      3,
      "services.catalog.object_store.storage_driver",
    ],
    [
      catalog("compression: {enabled: true}"),
      "services.catalog.compression",
      3,
      "services.catalog.object_store.compression",
    ],
    [
      "anchoreConfig:\n  catalog:\n    object_store: {}",
      "anchoreConfig.catalog.object_store",
      3,
      "services.catalog.object_store",
    ],
    ["other_object_stores: []", "other_object_stores", 1, "services.catalog.other_object_stores"],
    ["database: {db_connect: x}", "database.db_connect", 1, "credentials.database.db_connect"],
    ["credentials: {db_connect: x}", "credentials.db_connect", 1, "credentials.database.db_connect"],
  ])("at a wrong level shows the right place: %j", (text, key, line, right) => {
    expect(failure(text)).toEqual([
      key,
      line,
      "this is not the place of this key: it has no effect here",
      `move it to ${right}`,
    ]);
  });

  it.each([
    [catalog("object_stores: {}"), "services.catalog.object_stores", "did you mean object_store?"],
    [catalog("analysis-archive: {}"), "services.catalog.analysis-archive", "did you mean analysis_archive?"],
    ["service: {x: 1}", "service", "did you mean services?"],
    ["services: {catalogue: {x: 1}}", "services.catalogue", "did you mean catalog?"],
    ["credential: {x: 1}", "credential", "did you mean credentials?"],
  ])("under a misspelt name is no silent default: %j", (text, key, hint) => {
    const found = failure(text);
    expect([found[0], found[2], found[3]]).toEqual([key, "this key is not known", hint]);
  });
});

it("a schema that quotes what it refuses does not give a secret away", () => {
  const talkative = {
    name: "talkative",
    aliases: [],
    schema: z.strictObject({
      api_token: z
        .string()
        .superRefine((value, context) => context.addIssue({ code: "custom", message: `${value} is too old` })),
    }),
  };
  const throwing = {
    name: "throwing",
    aliases: [],
    schema: z.strictObject({ place: z.string().transform((value) => new URL(value)) }),
  };
  for (const [name, config] of [
    ["talkative", "{api_token: s3cr3t}"],
    ["throwing", "{place: s3cr3t}"],
  ]) {
    const read = () =>
      parseConfiguration(store(`{name: ${name}, config: ${config}}`), {
        file: "config.yaml",
        variables: {},
        drivers: [talkative, throwing],
      });
    expect(read).toThrow(/it can't be used/);
    expect(read).not.toThrow(/s3cr3t/);
  }
});

describe("two places of files", () => {
  const two = (one: string, other: string) =>
    catalog(
      `object_store: {storage_driver: {name: localfs, config: {archive_data_dir: ${one}}}}`,
      "analysis_archive:",
      `  storage_driver: {name: localfs, config: {archive_data_dir: ${other}}}`,
      "other_object_stores:",
      "- storage_driver: {name: localfs, config: {archive_data_dir: /elsewhere}}",
      `- storage_driver: {name: localfs, config: {archive_data_dir: ${one}}}`,
    );

  it.each([
    ["/nest", "/nest/ab"],
    ["/nest/ab", "/nest"],
    ["/nest/", "/nest/../nest/ab/c"],
    ["/", "/a"],
  ])("one within the other is refused: %s, %s", (one, other) => {
    const [key, line, reason] = failure(two(one, other));
    expect([key, line]).toEqual(["services.catalog.analysis_archive.storage_driver.config", 4]);
    expect(reason).toBe(`its place and that of ${place} lie one within the other`);
  });

  it.each([
    ["/nest", "/nest2"],
    ["/nest/a", "/nest/b"],
    ["/nest", "/nest/"],
  ])("side by side, or the same, are taken: %s, %s", (one, other) => {
    expect(parse(two(one, other)).otherObjectStores).toHaveLength(2);
  });
});

it("all mistakes are named at once, with a bound", () => {
  const also = (text: string) => {
    try {
      parse(text);
    } catch (error) {
      expect((error as StowageError).message).not.toContain("also");
      return (error as StowageError).details.also;
    }
    throw new Error("it was accepted");
  };
  const text = [
    "tmp_dir: 5",
    "credentials:",
    "  database: {db_connect: 'mysql://u:p4ss@h/d'}",
    ...["services:", "  analyzer: {layer_cache_enable: 'true'}", "  catalog:"],
    "    object_store: {storage_driver: {name: s3, config: {bukket: b, existingCredentialSecret: p4ss, url: x}}}",
    "    analysis_archive: {storage_driver: {name: s4}}",
  ].join("\n");
  expect(failure(text).slice(0, 3)).toEqual([`${place}.storage_driver.config.bukket`, 7, "this key is not known"]);
  const others = also(text) as readonly string[];
  expect(others.map((other) => /^config[.]yaml:\d:[\w.]+/.exec(other)?.[0])).toEqual([
    `config.yaml:7:${place}.storage_driver.config.existingCredentialSecret`,
    expect.stringContaining("bucket"),
    "config.yaml:8:services.catalog.analysis_archive.storage_driver.name",
    "config.yaml:3:credentials.database.db_connect",
    "config.yaml:1:tmp_dir",
    "config.yaml:5:services.analyzer.layer_cache_enable",
  ]);
  expect(others[3]).toMatch(/must begin with postgresql:.* [(]write it as /);
  expect(JSON.stringify(others)).not.toContain("p4ss");
  expect(also("tmp_dir: 5")).toBeUndefined();
  const many = Array.from({ length: 50 }, (_, index) => `k${index}: 1`).join(", ");
  expect(also(s3(many))).toHaveLength(21);
  expect((also(s3(many)) as readonly string[]).at(-1)).toMatch(/^and \d+ more$/);
});

it("a key of the database that is a known one's _file is a mistake, and that one is named", () => {
  expect(failure(database("user: u", "host: h", "name: n", "password_file: /run/secret"))).toEqual([
    "credentials.database.password_file",
    6,
    "this key is not known",
    "did you mean password?",
  ]);
});

describe("other keys", () => {
  it("are named in one warning each: those that mean nothing here, those that nobody knows", () => {
    const { warnings } = parse(
      "log_level: INFO\nhost_id: x\ncolour: red\nservices:\n  apiext: {enabled: true}\n  own: {}\n",
    );
    expect(warnings).toEqual([
      { file: "config.yaml", line: 1, text: "keys that have no meaning here: log_level, host_id, services.apiext" },
      { file: "config.yaml", line: 3, text: "keys that are not known: colour, services.(not shown)" },
    ]);
  });
});

describe("variables", () => {
  it("stand for text in texts, and for what they look like when they are alone", () => {
    const compression = (value: string) => catalog("object_store:", "  compression:", `    enabled: ${value}`);
    expect(parse(compression(reference("ON")), { ON: "true" }).objectStore.compression.enabled).toBe(true);
    expect(parse(compression(reference("ON")), { ON: "no" }).objectStore.compression.enabled).toBe(false);
    expect(failure(compression(`'${reference("ON")}'`), { ON: "true" })[2]).toBe(
      "it must be true or false, not a text",
    );
    const path = parse(`tmp_dir: /a/${reference("X")}/${reference("Y")}`, { X: "b: c # d", Y: `${reference("X")}\n"` });
    expect(path.temporaryDirectory).toBe(`/a/b: c # d/${reference("X")}\n"`);
    expect(path.values.find(({ key }) => key === "tmp_dir")?.source).toEqual({
      kind: "file",
      file: "config.yaml",
      line: 1,
      variables: ["X", "Y"],
    });
  });

  it("that look like numbers are texts where texts are wanted", () => {
    const config = s3(`bucket: ${reference("B")}, access_key: ${reference("A")}, secret_key: ${reference("A")}`);
    expect(parse(config, { A: "0123456789", B: "12345" }).objectStore.config).toMatchObject({ bucket: "12345" });
    const { database } = parse(databaseOf(reference("P")), { P: "1e5" });
    expect(database?.url.reveal()).toBe("postgresql://u:1e5@h:5432/n");
  });

  it("that are not set are errors, wherever they stand but in comments", () => {
    expect(failure(`# ${reference("NONE")}\nlog_level:\n  ${reference("OTHER")}`)).toEqual([
      undefined,
      3,
      "the environment variable OTHER is not set",
      "set OTHER, or write the value into the file",
    ]);
    expect(failure(`a: ${reference("constructor")}`)[2]).toBe("the environment variable constructor is not set");
    expect(parse("a: $HOME $$ $ {open}").warnings).toHaveLength(1);
  });
});

it.each(["my-var.x", "1", "a b", "a: b", "x #y", "[", "a,b", "ü€", "A".repeat(200)])(
  "a variable may have any name: %s",
  (name) => {
    const variables = { [name]: "ABC" };
    for (const text of [`"/x/${reference(name)}/y"`, `'/x/${reference(name)}/y'`, `/x/${reference(name)}/y`]) {
      for (const written of [`tmp_dir: ${text}`, `{tmp_dir: ${text}, log_level: 1}`]) {
        const { temporaryDirectory, values } = parse(written, variables);
        expect(temporaryDirectory).toBe("/x/ABC/y");
        expect(values.find(({ key }) => key === "tmp_dir")?.source).toMatchObject({ variables: [name] });
      }
      expect(failure(`\ntmp_dir: ${text}`).slice(1, 3)).toEqual([
        2,
        expect.stringMatching(/^the environment var.* is not set$/),
      ]);
    }
  },
);

it.each([
  [reference(""), /names no environment variable/],
  [`'a${reference("")}b'`, /names no environment variable/],
  [`"${reference("a'b")}"`, /can't have quotes, braces or line breaks/],
  [`"${reference("a\n    b")}"`, /can't have quotes, braces or line breaks/],
  [reference("p4ss word"), /^the environment variable that \$\{…\} names is not set$/],
])("a reference that names nothing is an error and shows nothing: %j", (text, problem) => {
  const [, line, reason, hint] = failure(`a:\n  b: ${text}`);
  expect([line, reason]).toEqual([2, expect.stringMatching(problem)]);
  expect(hint).toBe(`a value with \${…} in it must itself come from a variable`);
});

const databaseOf = (password: string) =>
  database("user: u", `password: ${password}`, "host: h", "port: 5432", "name: n");

describe("the database", () => {
  it.each([
    ["", {}],
    ["db_connect_args: {timeout: 120, ssl: false}", { connectTimeoutMs: 120_000 }],
    ["db_connect_args: {timeout: '120', connect_timeout: 5}", { connectTimeoutMs: 5000 }],
    ["db_connect_args: {timeout: 0}", {}],
    ["db_connect_args: {ssl: true}", { isSslRequired: true }],
    ["db_connect_args: {ssl: true, sslmode: prefer}", { sslMode: "require" }],
    [
      "db_connect_args: {ssl: true, sslmode: verify-full, sslrootcert: /r}",
      { sslMode: "verify-full", sslRootCertificate: "/r" },
    ],
    [
      "db_connect_args: {ssl: false, sslmode: verify-ca, sslcert: /c, sslkey: /k}",
      { sslMode: "verify-ca", sslCertificate: "/c", sslKey: "/k" },
    ],
    ["db_connect_args: {sslmode: , sslrootcert: }", {}],
    ["db_pool_size: 30\n    db_pool_max_overflow: 75", { connectionsMax: 105 }],
    ["db_pool_size: 5", { connectionsMax: 5 }],
    ["db_pool_size: 0", { connectionsMax: 1000 }],
    ["db_pool_max_overflow: -1", { connectionsMax: 1000 }],
  ])("%j", (lines, settings) => {
    const { database: found } = parse(database("db_connect: postgresql+pg8000://u:p@h/d", lines));
    expect(found?.url.reveal()).toBe("postgresql+pg8000://u:p@h/d");
    expect(found?.settings).toEqual(settings);
  });

  it.each([
    [
      ["user: u", "password: 'p:/@?#% '", "host: h", "port: 5433", "name: n"],
      "postgresql://u:p%3A%2F%40%3F%23%25%20@h:5433/n",
    ],
    [["user: u@x", "host: h", "name: n"], "postgresql://u%40x@h:5432/n"],
    [["user: u", "password: p", "host: '::1'", "name: n"], "postgresql://u:p@[::1]:5432/n"],
    [["user: u", "host: /run/postgresql", "name: n"], "postgresql:///n?host=%2Frun%2Fpostgresql&port=5432&user=u"],
    [
      ["user: u", "password: 'p&='", "host: /run/pg", "port: 1", "name: n"],
      "postgresql:///n?host=%2Frun%2Fpg&port=1&user=u&password=p%26%3D",
    ],
  ])("of parts: %j", (lines, url) => {
    expect(parse(database(...lines)).database?.url.reveal()).toBe(url);
    expect(URL.canParse(url)).toBe(true);
  });

  it.each([
    [["user: u", "host: h"], "name", "it is missing"],
    [["db_connect: 5"], "db_connect", "it must be a text, not a number"],
    [["db_conect: postgresql://u:p@h/d"], "db_conect", "this key is not known"],
    [
      ["db_connect: postgresql://h/d", "db_connect_args: {sslmod: verify-full}"],
      "db_connect_args.sslmod",
      "this key is not known",
    ],
    [
      ["db_connect: postgresql://h/d", "db_connect_args: {sslcrl: /x}"],
      "db_connect_args.sslcrl",
      "this key is not known",
    ],
    [
      ["db_connect: postgresql://h/d", "db_connect_args: {sslmode: full}"],
      "db_connect_args.sslmode",
      /^it must be one of: disable, allow, /,
    ],
    [
      ["db_connect: postgresql://h/d", "db_connect_args: {ssl: 'true'}"],
      "db_connect_args.ssl",
      "it must be true or false, not a text",
    ],
    [
      ["db_connect: postgresql://h/d", "db_connect_args: {timeout: soon}"],
      "db_connect_args.timeout",
      "it must be a whole number",
    ],
    [["db_connect: postgresql://h/d", "db_pool_size: -5"], "db_pool_size", "it must be at least 0"],
  ])("refuses %j", (lines, key, reason) => {
    const found = failure(database(...lines));
    expect(found[0]).toBe(`credentials.database.${key}`);
    if (typeof reason === "string") expect(found[2]).toBe(reason);
    else expect(found[2]).toMatch(reason);
  });

  it("that is not named is the embedded one; what is said of it is warned of", () => {
    const { database: found, warnings } = parse(database("db_pool_size: 3"));
    expect(found).toBeUndefined();
    expect(warnings).toEqual([
      {
        file: "config.yaml",
        line: 2,
        text: "credentials.database names no database: it has no db_connect, so nothing of it is used",
      },
    ]);
    for (const text of ["credentials:", "credentials: {database: }", "credentials: {database: {}}"])
      expect(parse(text)).toMatchObject({ database: undefined, warnings: [] });
  });

  it.each([["db_connect:"], ["db_connect: ~"], ["host:", "db_pool_size: 3"], ["db_pool_size: 3", "user: "]])(
    "that is named by nothing is a mistake: %j",
    (...lines) => {
      const [key, line, reason, hint] = failure(database(...lines));
      const at = lines.findIndex((text) => !text.startsWith("db_pool"));
      expect(key).toBe(`credentials.database.${lines[at]?.split(":")[0]}`);
      expect([line, reason]).toEqual([3 + at, "it is empty"]);
      expect(hint).toMatch(/for the embedded database take credentials.database out/);
    },
  );

  it.each([
    ["mysql://u:p4ss@h/d", /begin with postgresql:/],
    ["sqlite:////tmp/x.db", /begin with postgresql:/],
    ["postgresql://u:p4ss@b#c@h/d", /percent-encoded/],
    ["postgresql://u:p4/ss@h/d", /percent-encoded/],
    ["postgresql://u:12/p4ss@h/d", /percent-encoded/],
    ["postgresql://u:p4ss", /not a valid URL/],
    ["u:p4ss@h", /begin with postgresql:/],
    ["postgresql://u:p4ss@h/d?sslmode=full", /sslmode must be one of/],
  ])("a URL that no command could use is refused, and not shown: %s", (url, problem) => {
    const found = failure(database("db_pool_size: 1", `db_connect: "${url}"`));
    expect(found.slice(0, 2)).toEqual(["credentials.database.db_connect", 4]);
    expect(found[2]).toMatch(problem);
    expect(found.join(" ")).not.toMatch(/p4|ss@|x[.]db/);
  });

  it.each(["asyncpg", "psycopg", "psycopg2", "pg8000"])("whatever Python driver its URL names: %s", (driver) => {
    expect(parse(database(`db_connect: postgresql+${driver}://h/d`)).database).toBeDefined();
  });

  it("beside db_connect its parts are not used, and warned of", () => {
    const {
      database: found,
      warnings,
      values,
    } = parse(database("db_connect: postgresql://h/d", "host: other", "user: u", "password: p4ss"));
    expect(found?.url.reveal()).toBe("postgresql://h/d");
    expect(warnings).toEqual([
      {
        file: "config.yaml",
        line: 4,
        text: "credentials.database.host is not used: credentials.database.db_connect is there",
      },
    ]);
    expect(values.map(({ key }) => key)).not.toContain("credentials.database.host");
  });

  it("keys that only the original knows are warned of", () => {
    const { warnings } = parse(
      database("db_connect: postgresql://h/d", "db_echo: true", "db_connect_args: {keepalives: 1}"),
    );
    expect(warnings.map(({ text }) => text)).toEqual([
      "keys that have no meaning here: credentials.database.db_echo",
      "keys that are not known: credentials.database.db_connect_args.keepalives",
    ]);
  });
});

describe("YAML", () => {
  it.each([
    ["a: 1\n---\nb: 2", 2, /several documents/],
    ["a:\n\tb: 1", 2, /a tab is used/],
    ["a: 1\nb: 2\na: 3", 3, /twice; the first time in line 1/],
    ["a: {b: 1, b: 2}", 1, /twice/],
    ["a:\n  b: 'x\nc: 1", 3, /a quote/],
    ["a: b: c", 1, /in quotes/],
    ["- a\n- b", 1, /must hold a map, not a list/],
    ["just text", 1, /must hold a map, not a text/],
    ["a: *b", 1, /no anchor/],
    ["a: !python/object:os.system x", 1, /tags/],
    ["a: !!int '1'", 1, /tags/],
    ["? [a]\n: b", 1, /a key must be a plain text/],
    ["a: \u0001", 1, /control character/],
    ["<<: 1", 1, /takes a map/],
  ])("%j", (text, line, reason) => {
    const found = failure(text);
    expect(found[1]).toBe(line);
    expect(found[2]).toMatch(reason);
  });

  it("knows what PyYAML knows: yes and no, octal numbers, anchors, merge keys, Windows' line ends, a byte order mark apart", () => {
    const { objectStore, analysisArchive } = parse(
      catalog(
        "object_store: &store",
        "  compression: &compression {enabled: yes, min_size_kbytes: 0144}",
        "  storage_driver: {name: db}",
        "analysis_archive:",
        "  <<: *store",
        "  compression: {<<: *compression, enabled: off}",
      ).replaceAll("\n", "\r\n"),
    );
    expect(objectStore.compression).toEqual({ enabled: true, minSizeKbytes: 100, algorithm: "zstd" });
    expect(analysisArchive?.compression).toEqual({ enabled: false, minSizeKbytes: 100, algorithm: "zstd" });
  });
});

describe("values", () => {
  const row = (values: readonly ConfigurationValue[], key: string) => values.find((value) => value.key === key);

  it("know where they come from, and which are secret", () => {
    const { values } = parse(
      `${s3(`bucket: bbb, access_key: AKIDEXAMPLE, secret_key: ${reference("S")}, url: "https://h"`)}\n    other_object_stores:\n    - storage_driver: {name: localfs, config: {archive_data_dir: /a}}`,
      { S: "topsecret" },
    );
    const config = `${place}.storage_driver.config`;
    expect(row(values, `${config}.bucket`)).toMatchObject({ value: "bbb", source: { line: 4 } });
    for (const key of ["access_key", "secret_key"])
      expect(row(values, `${config}.${key}`)?.value).toBeInstanceOf(Secret);
    expect(row(values, `${config}.secret_key`)?.source).toMatchObject({ kind: "file", line: 4, variables: ["S"] });
    expect(row(values, `${place}.compression.enabled`)).toMatchObject({ value: false, source: { kind: "default" } });
    expect(row(values, "services.catalog.other_object_stores[0].storage_driver.config.file_mode")).toMatchObject({
      value: "0640",
      source: { kind: "default" },
    });
    expect(row(values, "services.catalog.analysis_archive")).toMatchObject({ source: { kind: "default" } });
    expect(JSON.stringify(values)).not.toMatch(/AKIDEXAMPLE|topsecret/);
  });

  it.each([
    [
      ["db_connect: postgresql://h/d"],
      { timeout: [15, "default"], sslmode: ["prefer", "default"], size: [8, "default"], overflow: [0, "default"] },
    ],
    [
      ["db_connect: postgresql://h/d?sslmode=verify-ca&connect_timeout=7", "db_pool_size: 3"],
      { timeout: [7, "file"], sslmode: ["verify-ca", "file"], size: [3, "file"], overflow: [0, "default"] },
    ],
    [
      ["db_connect: postgresql://h/d", "db_connect_args: {ssl: true, timeout: 3}", "db_pool_max_overflow: 5"],
      { timeout: [3, "file"], sslmode: ["require", "default"], size: [30, "default"], overflow: [5, "file"] },
    ],
  ])("what holds of the database though no key says it: %j", (lines, expected) => {
    const { values } = parse(database(...lines));
    const found = (key: string) => {
      const { value, source } = row(values, `credentials.database.${key}`) ?? {};
      return [value, source?.kind];
    };
    expect({
      timeout: found("db_connect_args.timeout"),
      sslmode: found("db_connect_args.sslmode"),
      size: found("db_pool_size"),
      overflow: found("db_pool_max_overflow"),
    }).toEqual(expected);
  });
});
