import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { drivers } from "../app/drivers.ts";
import { databasePlace } from "./database-url.ts";
import { defaultConfiguration, readConfiguration, readStorageText } from "./index.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "stowage-test-storage-text-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const variables = { KEY: "of-the-variable", BUCKET: "bucket-of-variable" };

async function read(text: string) {
  const file = join(directory, "config.yaml");
  await writeFile(file, text);
  return await readConfiguration(file, { variables, defaultFiles: [], file: undefined }, drivers);
}

const text = `
x-keys: &keys
  access_key: AK   # no secret comment
  secret_key: 'lit#eral secret'
credentials: {database: {db_connect: "postgresql://u:password@h/d"}}
services:
  catalog:
    max_request_threads: 50
    object_store:
      compression: {enabled: true, min_size_kbytes: 10}
      storage_driver: {name: s3, config: {<<: *keys, bucket: "\${BUCKET}", url: "http://h:9000", prefix: "0123"}}
    other_object_stores:
      - storage_driver: {name: s3, config: {bucket: other, access_key: \${KEY}, secret_key: \${KEY}}}
      - storage_driver: {name: s3, config: {bucket: third, access_key: k, secret_key: "x\${KEY}"}}
`;

describe("storage sections as they are written", () => {
  it("keep what the file says, so that the configuration stays the same", async () => {
    const before = await read(text);
    const written = await readStorageText(before, false);
    expect(written).not.toMatch(/comment|threads|password|of-the-variable|of-variable/);
    const after = await read(written);
    expect(after.objectStore).toEqual(before.objectStore);
    expect(after.otherObjectStores).toEqual(before.otherObjectStores);
    expect(after.analysisArchive).toBeUndefined();
  });

  it("have no secret when they are masked, but the names of variables", async () => {
    const shown = await readStorageText(await read(text), true);
    expect(shown).not.toMatch(/eral|of-the-variable/);
    expect(shown.match(/"[*]{8}"/g)?.length).toBeGreaterThanOrEqual(2);
    expect(shown).toMatch(/^ +secret_key: \$\{KEY\}$/m);
    expect(shown).toContain(`prefix: "0123"`);
    await expect(read(shown)).resolves.toBeDefined();
  });

  it.each([
    ["no file", undefined],
    ["an empty file", ""],
    ["a file that names no store", "services: {catalog: {enabled: true}}\n"],
  ])("of %s are the defaults", async (_, given) => {
    const configuration = given === undefined ? defaultConfiguration : await read(given);
    expect(await readStorageText(configuration, true)).toBe(
      "services:\n  catalog:\n    object_store:\n      storage_driver:\n        name: db\n",
    );
  });

  it("are not taken from another file than was read", async () => {
    const configuration = await read(text);
    await rm(configuration.file ?? "");
    await expect(readStorageText(configuration, true)).rejects.toMatchObject({ code: "CONFIG_INVALID" });
    await writeFile(configuration.file ?? "", "a: [");
    await expect(readStorageText(configuration, true)).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  });
});

it.each([
  ["postgresql://a@h/d", "postgres://b:secret@H:5432/d?sslmode=require", true],
  ["postgresql+pg8000://a@h/d", "postgresql://h/d", true],
  ["postgresql:///d?host=/run/pg", "postgresql:///d?host=/run/pg&port=5432", true],
  ["postgresql://d@h", "postgresql://h/d", true],
  ["postgresql://h/d", "postgresql://h/e", false],
  ["postgresql://h/d", "postgresql://h:5433/d", false],
  ["postgresql://h/d", "postgresql://i/d", false],
  ["no url", "no url", true],
])("%s and %s name the same database: %s", (one, other, isSame) => {
  expect(databasePlace(one) === databasePlace(other)).toBe(isSame);
});
