import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { documentOf, ended, root, startStowage, stowage, temporaryDirectory } from "./command.ts";

let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
let whole: string;

const secrets = { STORE_ACCESS_KEY: "AKIDEXAMPLE77", STORE_SECRET_KEY: "hunter2: #x", DB_PASSWORD: "p4ss/w@rd" };
const reference = (name: string) => `\${${name}}`;

beforeAll(async () => {
  directory = await temporaryDirectory();
  whole = await write(
    "whole.yaml",
    `log_level: INFO
credentials:
  database:
    user: stowage
    password: ${reference("DB_PASSWORD")}
    host: 127.0.0.1
    port: 1
    name: stowage
    db_connect_args: {sslmode: require, timeout: 5}
services:
  catalog:
    object_store:
      compression: {enabled: true}
      storage_driver:
        name: s3
        config:
          access_key: ${reference("STORE_ACCESS_KEY")}
          secret_key: ${reference("STORE_SECRET_KEY")}
          url: http://127.0.0.1:1
          bucket: stowage
    analysis_archive: {}
`,
  );
});
afterAll(() => directory?.[Symbol.asyncDispose]());

async function write(name: string, text: string): Promise<string> {
  const path = join(directory.path, name);
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, text);
  return path;
}

async function failure(line: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const { code, stdout, stderr } = await stowage([...line, "-o", "json"], { env });
  expect(stdout).toBe("");
  return { code, ...documentOf("error", stderr).error };
}

interface Row {
  readonly key: string;
  readonly value: unknown;
  readonly isSecret: boolean;
  readonly source: object;
}

async function show(line: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const { code, stdout, stderr } = await stowage(["config", "show", ...line, "-o", "json"], { env });
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const { file, values } = documentOf("config-show", stdout) as { file?: string; values: readonly Row[] };
  const row = (key: string) => values.find((each) => each.key === key);
  return { file, row, stdout };
}

describe("config validate", () => {
  it("accepts a right file, and tells what has no meaning", async () => {
    const { code, stdout, stderr } = await stowage(["config", "validate", whole], { env: secrets });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toBe(`warning: ${whole}:1: keys that have no meaning here: log_level\n${whole} is valid\n`);
    const json = await stowage(["config", "validate", whole, "-o", "json"], { env: secrets });
    expect(documentOf("config-validate", json.stdout)).toEqual({
      file: whole,
      warnings: [{ file: whole, line: 1, text: "keys that have no meaning here: log_level" }],
    });
  });

  it("refuses a wrong one with key, line, reason and the nearest right key", async () => {
    const wrong = await write(
      "wrong.yaml",
      "services:\n  catalog:\n    object_store:\n      storage_driver:\n        name: s3\n        config:\n          secretkey: hunter2\n          bucket: b\n",
    );
    const found = await failure(["config", "validate", wrong]);
    expect(found).toMatchObject({
      code: "CONFIG_INVALID",
      details: {
        key: "services.catalog.object_store.storage_driver.config.secretkey",
        file: wrong,
        line: 7,
        reason: "this key is not known",
      },
      hint: "did you mean secret_key?",
    });
    const { code, stderr } = await stowage(["config", "validate", wrong]);
    expect(code).toBe(2);
    expect(stderr).not.toContain("hunter2");
  });

  it.each([
    ["object_store: {}", 1, "move it to services.catalog.object_store"],
    ["services:\n  object_store: {}", 2, "move it to services.catalog.object_store"],
    [
      "services:\n  catalog:\n    storage_driver: {name: db}",
      3,
      "move it to services.catalog.object_store.storage_driver",
    ],
  ])("shows the right place of a section at a wrong level: %j", async (text, line, hint) => {
    const file = await write("level.yaml", text);
    expect(await failure(["config", "validate", file])).toMatchObject({ details: { file, line }, hint });
  });

  it("a variable that is not set, a file that is not there, a directory", async () => {
    expect(await failure(["config", "validate", whole])).toMatchObject({
      details: { file: whole, line: 5, reason: "the environment variable DB_PASSWORD is not set" },
    });
    const none = join(directory.path, "none.yaml");
    expect(await failure(["config", "validate", none])).toMatchObject({ details: { file: none } });
    expect(await failure(["config", "validate", directory.path])).toMatchObject({ details: { file: directory.path } });
  });

  it("takes variables from ANCHORE_ENV_FILE, the environment before it", async () => {
    const file = await write("env.yaml", `tmp_dir: ${reference("ANCHORE_A")}${reference("ANCHORE_B")}\n`);
    const env = { ANCHORE_ENV_FILE: await write("env", "ANCHORE_A='/a'\nANCHORE_B=x\nOTHER=y\n"), ANCHORE_B: "/b=c" };
    expect((await show(["--config", file], env)).row("tmp_dir")).toMatchObject({ value: "/a/b=c" });
  });

  it("accepts the configurations of the documentation", async () => {
    const env = Object.fromEntries(
      ["STOWAGE_DB_USER", "STOWAGE_DB_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "DB_USER", "DB_PASSWORD"].map(
        (name) => [name, "x1y2z3"],
      ),
    );
    const files = await readdir(join(root, "docs/configurations"));
    expect(files.length).toBeGreaterThan(7);
    for (const name of files) {
      const { code, stdout } = await stowage(["config", "validate", join(root, "docs/configurations", name)], { env });
      expect({ name, code, stdout }).toEqual({ name, code: 0, stdout: expect.stringMatching(/^[^\n]* is valid\n$/) });
    }
  });
});

describe("config show", () => {
  it("says what holds, where from, and no secret", async () => {
    const { file, row, stdout } = await show(["--config", whole], secrets);
    expect(file).toBe(whole);
    expect(row("database")).toMatchObject({
      value: "postgresql://stowage:********@127.0.0.1:1/stowage",
      source: { line: 6 },
    });
    expect(row("credentials.database.password")).toMatchObject({
      value: "********",
      isSecret: true,
      source: { kind: "file", file: whole, line: 5, variables: ["DB_PASSWORD"] },
    });
    const config = "services.catalog.object_store.storage_driver.config";
    expect(row(`${config}.bucket`)).toMatchObject({ value: "stowage", isSecret: false, source: { line: 20 } });
    for (const key of ["access_key", "secret_key"]) {
      expect(row(`${config}.${key}`)).toMatchObject({ value: "********", isSecret: true });
    }
    expect(row("services.catalog.object_store.compression.min_size_kbytes")).toMatchObject({
      value: 100,
      source: { kind: "default" },
    });
    const table = await stowage(["config", "show", "--config", whole], { env: secrets });
    expect(table.stdout).toMatch(/^KEY +VALUE +FROM\n/);
    expect(table.stdout).toContain(`${whole}:18 (STORE_SECRET_KEY)`);
    for (const secret of Object.values(secrets)) {
      for (const text of [stdout, table.stdout, table.stderr]) {
        expect(text).not.toContain(secret);
        expect(text).not.toContain(encodeURIComponent(secret));
      }
    }
  });

  it("options come before variables, variables before the file, the file before defaults", async () => {
    const data = join(directory.path, "data");
    expect((await show([])).row("database")).toMatchObject({ value: "embedded", source: { kind: "default" } });
    expect((await show([], { STOWAGE_DATA_DIR: data })).row("data_dir")).toMatchObject({
      value: data,
      source: { kind: "variable", name: "STOWAGE_DATA_DIR" },
    });
    const url = "postgresql://u:geheim@other/d";
    const option = await show(["--config", whole, "--db-connect", url], secrets);
    expect(option.row("database")).toMatchObject({ source: { kind: "option", name: "--db-connect" } });
    expect(option.row("credentials.database.host")).toBeUndefined();
    const variable = await show(["--config", whole], { ...secrets, STOWAGE_DB_CONNECT: url });
    expect(variable.row("database")).toMatchObject({
      value: "postgresql://u:********@other/d",
      source: { kind: "variable", name: "STOWAGE_DB_CONNECT" },
    });
    expect(option.stdout + variable.stdout).not.toContain("geheim");
    expect(
      (await show(["--limit", "notesMax=7"], { STOWAGE_LIMITS: "layersMax=5" })).row("limits.notesMax"),
    ).toMatchObject({
      value: 7,
      source: { kind: "option", name: "--limit" },
    });
  });

  it("finds its file: option, variable, the user's directory", async () => {
    const one = await write("one.yaml", "tmp_dir: /one\n");
    const two = await write("two.yaml", "tmp_dir: /two\n");
    const own = await write("home/stowage/config.yaml", "tmp_dir: /own\n");
    const XDG_CONFIG_HOME = join(directory.path, "home");
    expect((await show(["--config", one], { STOWAGE_CONFIG: two, XDG_CONFIG_HOME })).file).toBe(one);
    expect((await show([], { STOWAGE_CONFIG: two, XDG_CONFIG_HOME })).file).toBe(two);
    const found = await show([], { XDG_CONFIG_HOME });
    expect([found.file, found.row("tmp_dir")?.value]).toEqual([own, "/own"]);
    expect(await failure(["config", "show"], { STOWAGE_CONFIG: join(directory.path, "none.yaml") })).toMatchObject({
      code: "CONFIG_INVALID",
    });
  });
});

describe("every command", () => {
  it("uses the database that the file names, and its settings", async () => {
    const found = await failure(["image", "list", "--config", whole, "--log-level", "error"], secrets);
    expect(found).toMatchObject({
      code: "DB_UNREACHABLE",
      details: { database: "postgresql://stowage@127.0.0.1:1/stowage" },
    });
  });

  it("ends with 2 when the file is wrong", async () => {
    const file = await write("bad.yaml", "services: [\n");
    const { code, stderr } = await stowage(["image", "list", "--config", file]);
    expect(code).toBe(2);
    expect(stderr).toContain("CONFIG_INVALID");
  });

  it("loads neither the YAML parser nor a driver's schema where there is no file", async () => {
    const hooks = `import { registerHooks } from "node:module";
      registerHooks({ load(url, context, next) { process.stderr.write(url + "\\n"); return next(url, context); } });`;
    const { code, stderr } = await ended(
      startStowage(["image", "list", "--data-dir", join(directory.path, "data")], {
        program: ["--import", `data:text/javascript,${encodeURIComponent(hooks)}`, join(root, "src/cli/main.ts")],
        env: { XDG_CONFIG_HOME: directory.path },
      }),
    );
    expect(code).toBe(0);
    const loaded = stderr.split("\n").filter((line) => line.startsWith("file:"));
    expect(loaded.length).toBeGreaterThan(50);
    expect(
      loaded.filter((url) =>
        /node_modules\/yaml\/|src\/config\/(parse|schema|interpret)[.]ts|drivers\/(s3|swift|localfs)\//.test(url),
      ),
    ).toEqual([]);
  });
});
