import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { drivers } from "../app/drivers.ts";
import type { Configuration } from "./configuration.ts";
import { parseConfiguration } from "./parse.ts";

const variables = {
  ANCHORE_OBJECT_STORE_ACCESS_KEY: "AKIDEXAMPLE",
  ANCHORE_OBJECT_STORE_SECRET_KEY: "s: e#c\nret",
  STOWAGE_DB_USER: "stowage",
  STOWAGE_DB_PASSWORD: "p%40ss",
  S3_ACCESS_KEY: "AKIDEXAMPLE",
  S3_SECRET_KEY: "abc/def+ghi",
  DB_USER: "stowage",
  DB_PASSWORD: "p@ss: #1",
};

function parse(text: string): Configuration {
  return parseConfiguration(text, { file: "config.yaml", variables, drivers });
}

/** A set-up of the original's documentation, in the place that it is meant for. */
function setUp(text: string): Configuration {
  const { warnings, ...rest } = parse(`services:\n  catalog:\n${text.trim().replaceAll(/^/gm, "    ")}\n`);
  expect(warnings).toEqual([]);
  return { warnings, ...rest };
}

const off = { enabled: false, minSizeKbytes: 100, algorithm: "zstd" };
const on = { ...off, enabled: true };

describe("set-ups of the original's documentation", () => {
  it("(a) database only", () => {
    const { objectStore, analysisArchive, otherObjectStores } = setUp(`
object_store:
  compression: {enabled: false, min_size_kbytes: 100}
  storage_driver: {name: db, config: {}}`);
    expect(objectStore).toEqual({
      place: "services.catalog.object_store",
      name: "db",
      config: {},
      compression: off,
    });
    expect({ analysisArchive, otherObjectStores }).toEqual({ analysisArchive: undefined, otherObjectStores: [] });
  });

  it.each(["", "analysis_archive: null", "analysis_archive: {}", "analysis_archive:"])(
    "(b) one S3 for both: '%s'",
    (archive) => {
      const { objectStore, analysisArchive } = setUp(`
object_store:
  compression: {enabled: false, min_size_kbytes: 100}
  storage_driver:
    name: s3
    config: {access_key: MY_ACCESS_KEY, secret_key: MY_SECRET_KEY, url: 'https://S3-end-point.example.com', region: false, bucket: anchorearchive, create_bucket: true}
${archive}`);
      expect(objectStore).toMatchObject({
        name: "s3",
        config: { url: "https://S3-end-point.example.com", bucket: "anchorearchive", createsBucket: true },
        compression: off,
      });
      expect(analysisArchive).toBeUndefined();
    },
  );

  it("(c) two buckets", () => {
    const { objectStore, analysisArchive } = setUp(`
object_store:
  compression: {enabled: true, min_size_kbytes: 100}
  storage_driver: {name: s3, config: {access_key: K, secret_key: S, url: 'https://s3.example.com', bucket: one}}
analysis_archive:
  compression: {enabled: true, min_size_kbytes: 100}
  storage_driver: {name: s3, config: {access_key: K, secret_key: S, url: 'https://s3.example.com', bucket: two}}`);
    expect(objectStore).toMatchObject({ name: "s3", config: { bucket: "one" }, compression: on });
    expect(analysisArchive).toMatchObject({
      place: "services.catalog.analysis_archive",
      name: "s3",
      config: { bucket: "two" },
      compression: on,
    });
  });

  it("(d) working set in the database, archive in S3", () => {
    const { objectStore, analysisArchive } = setUp(`
object_store:
  compression: {enabled: false, min_size_kbytes: 100}
  storage_driver: {name: db, config: {}}
analysis_archive:
  enabled: true
  compression: {enabled: false, min_size_kbytes: 100}
  storage_driver: {name: s3, config: {access_key: K, secret_key: S, url: 'http://minio-ephemeral-test:9000', region: null, bucket: analysisarchive}}`);
    expect(objectStore).toMatchObject({ name: "db" });
    expect(analysisArchive).toMatchObject({ name: "s3", config: { bucket: "analysisarchive" } });
  });

  it("(e) AWS, role of instance, task or service account", () => {
    expect(
      setUp(`
object_store:
  compression: {enabled: true, min_size_kbytes: 100}
  storage_driver: {name: s3, config: {iamauto: true, region: us-west-2, bucket: anchoredata, create_bucket: false}}`)
        .objectStore,
    ).toMatchObject({
      name: "s3",
      config: { credentials: { kind: "search" }, region: "us-west-2", bucket: "anchoredata", createsBucket: false },
    });
  });

  it("(f) MinIO-like", () => {
    expect(
      setUp(`
object_store:
  compression: {enabled: true, min_size_kbytes: 100}
  storage_driver: {name: s3, config: {access_key: K, secret_key: S, url: 'https://minio:5000', bucket: anchoredata, create_bucket: false}}`)
        .objectStore,
    ).toMatchObject({ name: "s3", config: { url: "https://minio:5000", isPathStyle: true } });
  });

  it("(g) Kubernetes secret: variables, whatever stands in them, quoted or not", () => {
    for (const quote of ["'", '"', ""]) {
      const { objectStore } = setUp(`
object_store:
  storage_driver: {name: s3, config: {access_key: ${quote}\${ANCHORE_OBJECT_STORE_ACCESS_KEY}${quote}, secret_key: ${quote}\${ANCHORE_OBJECT_STORE_SECRET_KEY}${quote}, url: 'http://minio:9000', bucket: anchoredata}}`);
      const { credentials } = objectStore.config as {
        credentials: { accessKey: { reveal(): string }; secretKey: { reveal(): string } };
      };
      expect(credentials.accessKey.reveal()).toBe("AKIDEXAMPLE");
      expect(credentials.secretKey.reveal()).toBe("s: e#c\nret");
    }
  });

  it("(h) file system", () => {
    expect(
      setUp(`
object_store:
  compression: {enabled: true, min_size_kbytes: 100}
  storage_driver: {name: localfs, config: {archive_data_dir: /object_store}}`).objectStore,
    ).toMatchObject({ name: "localfs", config: { archive_data_dir: "/object_store" }, compression: on });
  });

  it.each([
    "{user: 'test:tester', key: testing, auth: 'http://swift.example.com:8080/auth/v1.0', container: anchorearchive, create_container: true}",
    "{auth_version: '2', os_username: U, os_password: P, os_tenant_name: T, os_auth_url: 'https://keystone/v2.0', container: anchorearchive}",
    "{auth_version: '3', os_username: U, os_password: P, os_project_name: J, os_project_domain_name: N, os_auth_url: 'https://keystone/v3', container: anchorearchive}",
  ])("(i) Swift: %s", (config) => {
    expect(
      setUp(`
object_store:
  compression: {enabled: true, min_size_kbytes: 100}
  storage_driver:
    name: swift
    config: ${config}`).objectStore,
    ).toMatchObject({ name: "swift", config: { container: "anchorearchive" }, compression: on });
  });

  it("a whole file, with the keys that have no meaning here in one warning", () => {
    const { database, temporaryDirectory, layerCache, warnings } = parse(`
service_dir: /anchore_service
tmp_dir: /analysis_scratch                # engine default /tmp
credentials:
  database:
    db_connect: 'postgresql://anchore:secret@db:5432/anchore'
    db_connect_args: {timeout: 120, ssl: false}
    db_pool_size: 30
    db_pool_max_overflow: 100
services:
  catalog:
    enabled: true
    endpoint_hostname: catalog
    listen: 0.0.0.0
    port: 8228
    cycle_timers: {archive_tasks: 43200}
    object_store: {}
    analysis_archive: {}
  analyzer: {enabled: true, endpoint_hostname: analyzer, listen: 0.0.0.0, port: 8228, max_threads: 1, layer_cache_enable: true, layer_cache_max_gigabytes: 4}
  policy_engine: {enabled: true, endpoint_hostname: policy-engine, listen: 0.0.0.0, port: 8228, enable_package_db_load: true}
`);
    expect(database?.url.reveal()).toBe("postgresql://anchore:secret@db:5432/anchore");
    expect(database?.settings).toEqual({ connectTimeoutMs: 120_000, connectionsMax: 130 });
    expect(temporaryDirectory).toBe("/analysis_scratch");
    expect(layerCache).toEqual({ enabled: true, bytesMax: 4e9 });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatchObject({ file: "config.yaml", line: 2 });
    expect(warnings[0]?.text).toMatch(/^keys that have no meaning here: service_dir, services.catalog.enabled, /);
    expect(warnings[0]?.text).toMatch(/services.analyzer.max_threads, services.policy_engine$/);
  });
});

describe("docs/configurations", () => {
  const directory = join(import.meta.dirname, "..", "..", "docs", "configurations");
  const expected: Readonly<Record<string, readonly [store: string, archive: string | undefined, database: boolean]>> = {
    "aws-role.yaml": ["s3", undefined, false],
    "database-and-s3-archive.yaml": ["db", "s3", false],
    "database.yaml": ["db", undefined, true],
    "file-system.yaml": ["localfs", undefined, false],
    "kubernetes-secret.yaml": ["s3", undefined, true],
    "one-s3-bucket.yaml": ["s3", undefined, false],
    "s3-compatible.yaml": ["s3", undefined, false],
    "two-s3-buckets.yaml": ["s3", "s3", false],
  };

  it("are all here", () => {
    expect(readdirSync(directory).sort()).toEqual(Object.keys(expected));
  });

  it.each(Object.entries(expected))("%s", (name, [store, archive, hasDatabase]) => {
    const { objectStore, analysisArchive, database, warnings } = parse(readFileSync(join(directory, name), "utf8"));
    expect([objectStore.name, analysisArchive?.name, database !== undefined, warnings]).toEqual([
      store,
      archive,
      hasDatabase,
      [],
    ]);
  });

  it("a password of any characters reaches the database", () => {
    const { database } = parse(readFileSync(join(directory, "kubernetes-secret.yaml"), "utf8"));
    const url = new URL(database?.url.reveal() ?? "");
    expect(decodeURIComponent(url.password)).toBe("p@ss: #1");
    expect([url.username, url.host, url.pathname]).toEqual(["stowage", "postgresql:5432", "/stowage"]);
  });
});
