import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { drivers } from "../app/drivers.ts";
import { fileBytesMax } from "./configuration.ts";
import { readEnvironment } from "./environment.ts";
import { findConfigurationFile, readConfiguration } from "./read.ts";

let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "stowage-test-config-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

async function write(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(directory, name);
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, content);
  return path;
}

const environment = (variables: NodeJS.ProcessEnv = {}) =>
  readEnvironment({ HOME: directory, ...variables }, "linux").configuration;
const read = (file: string, variables: NodeJS.ProcessEnv = {}) =>
  readConfiguration(file, environment(variables), drivers);

describe("where the file is looked for", () => {
  it("in the user's directory, then in the machine's", () => {
    expect(environment().defaultFiles).toEqual([
      join(directory, ".config/stowage/config.yaml"),
      "/etc/stowage/config.yaml",
    ]);
    expect(environment({ XDG_CONFIG_HOME: "/x" }).defaultFiles[0]).toBe("/x/stowage/config.yaml");
    expect(readEnvironment({ HOME: "/h" }, "darwin").configuration.defaultFiles[0]).toBe(
      "/h/Library/Application Support/stowage/config.yaml",
    );
    expect(environment({ STOWAGE_CONFIG: "/c" }).file).toBe("/c");
    expect(environment({ STOWAGE_CONFIG: "" }).file).toBeUndefined();
  });

  it("the first that is there counts, and what can't be read is not passed over", async () => {
    const second = await write("second.yaml", "");
    const find = (...defaultFiles: readonly string[]) => findConfigurationFile({ ...environment(), defaultFiles });
    expect(await find(join(directory, "none.yaml"), join(second, "below"), second)).toBe(second);
    expect(await find(join(directory, "none.yaml"))).toBeUndefined();
    const loop = join(directory, "loop.yaml");
    await symlink(loop, loop);
    expect(await find(loop, second)).toBe(loop);
    await expect(read(loop)).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      details: { reason: "it can't be read: ELOOP" },
    });
  });
});

describe("reading", () => {
  it("takes files, with a byte order mark too, and symbolic links, as mounted secrets are", async () => {
    const file = await write("bom.yaml", "\ufefftmp_dir: /a\n");
    await symlink(file, join(directory, "link.yaml"));
    expect((await read(join(directory, "link.yaml"))).temporaryDirectory).toBe("/a");
  });

  it.each([
    ["large.yaml", "#".repeat(fileBytesMax + 1), "it is larger than 262144 bytes"],
    ["latin1.yaml", Buffer.from("tmp_dir: /\xe4", "latin1"), "it is not UTF-8"],
  ])("refuses %s", async (name, content, reason) => {
    const file = await write(name, content);
    await expect(read(file)).rejects.toMatchObject({ code: "CONFIG_INVALID", details: { file, reason } });
  });

  it("refuses what is no file, and what is not there", async () => {
    await expect(read("/dev/zero")).rejects.toMatchObject({ details: { reason: "it is not a file" } });
    await expect(read(directory)).rejects.toMatchObject({ details: { file: directory } });
    await expect(read(join(directory, "none.yaml"))).rejects.toMatchObject({
      details: { reason: "the file is not there" },
    });
  });
});

describe("ANCHORE_ENV_FILE", () => {
  const value = async (lines: string, variables: NodeJS.ProcessEnv = {}) => {
    const file = await write("variables.yaml", `tmp_dir: /\${ANCHORE_X}\n`);
    return (await read(file, { ANCHORE_ENV_FILE: await write("variables", lines), ...variables })).temporaryDirectory;
  };

  it.each([
    ["ANCHORE_X=a", "/a"],
    ["ANCHORE_X=a=b=c", "/a=b=c"],
    ["ANCHORE_X='a b'\r\nOTHER=c", "/a b"],
    ['ANCHORE_X="a"', "/a"],
    ["# ANCHORE_X=z\nANCHORE_X=a\nANCHORE_X=b", "/b"],
    ["ANCHORE_X=", "/"],
  ])("%j", async (lines, expected) => {
    expect(await value(lines)).toBe(expected);
  });

  it("gives way to the environment, and has only names that begin with ANCHORE", async () => {
    expect(await value("ANCHORE_X=a", { ANCHORE_X: "b" })).toBe("/b");
    await expect(value("X=a\nexport ANCHORE_X=a")).rejects.toMatchObject({
      details: { reason: "the environment variable ANCHORE_X is not set" },
    });
  });

  it("must be there", async () => {
    const file = await write("plain.yaml", "tmp_dir: /a\n");
    await expect(read(file, { ANCHORE_ENV_FILE: "/nonexistent" })).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      details: { key: "ANCHORE_ENV_FILE" },
    });
  });
});
