/**
 * Real images against the truth about them, which programs that share nothing with stowage have told (umoci, the package managers themselves).
 * The images are other people's files, so they are not part of this project: they are looked for where `STOWAGE_FIXTURES` says, else in
 * `../shared/fixtures` beside the checkout.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { documentOf, root, stowage, temporaryDirectory } from "./command.ts";

const fixtures = process.env.STOWAGE_FIXTURES ?? join(root, "../shared/fixtures");
const areThere = existsSync(join(fixtures, "truth"));
const areRequired = (process.env.STOWAGE_TEST_REQUIRE ?? "").split(",").includes("fixtures");
if (!areThere && !areRequired) {
  process.stderr.write(`\nSKIPPED: the truth about real images: no fixtures in ${fixtures} (set STOWAGE_FIXTURES)\n\n`);
}

interface TrueFile {
  readonly path: string;
  readonly type: string;
  readonly mode: string;
  readonly uid: number;
  readonly gid: number;
  readonly size?: number;
  readonly md5?: string;
  readonly sha1?: string;
  readonly sha256?: string;
  readonly linkTarget?: string;
  readonly device?: string;
  readonly implied?: true;
  readonly sameInodeAs?: string;
}

interface Truth {
  readonly name: string;
  readonly manifestDigest: string;
  readonly imageId: string;
  readonly architecture: string;
  readonly layers: readonly { digest: string; mediaType: string; size: number; diffId: string }[];
  // biome-ignore lint/suspicious/noExplicitAny: each package system tells something else
  readonly packages: Readonly<Record<string, readonly any[]>>;
  readonly files: readonly TrueFile[];
}

interface FoundFile {
  readonly path: string;
  readonly type: string;
  readonly mode: string;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly md5?: string;
  readonly sha1?: string;
  readonly sha256?: string;
  readonly linkTarget?: string;
  readonly device?: string;
  readonly hardlinkOf?: string;
  readonly isImplied?: true;
  readonly layer: number;
}

/** One fixture is enough to know; a new one without a line here fails. */
const distributions: Readonly<Record<string, object>> = {
  "alpine-3.20": { id: "alpine", version: "3.20.3" },
  "debian-12-languages": { id: "debian", version: "12" },
  layers: { id: "layers", version: "1" },
  "rpm-mariner": { id: "mariner", version: "2.0" },
  "rpm-sqlite": { id: "fedora", version: "38" },
};

const names = areThere
  ? readdirSync(join(fixtures, "truth")).map((file) => file.replace(/\.json\.gz$/, ""))
  : Object.keys(distributions);

let directory: Awaited<ReturnType<typeof temporaryDirectory>>;

beforeAll(async () => {
  directory = await temporaryDirectory();
});
afterAll(() => directory?.[Symbol.asyncDispose]());

async function json(schema: string, ...line: readonly string[]) {
  const ended = await stowage([...line, "--data-dir", join(directory.path, "data"), "--quiet", "-o", "json"]);
  expect({ code: ended.code, stderr: ended.stderr }).toEqual({ code: 0, stderr: "" });
  return documentOf(schema, ended.stdout);
}

describe.skipIf(!areThere && !areRequired).each(names)("%s", (name) => {
  let truth: Truth;
  // biome-ignore lint/suspicious/noExplicitAny: checked against its schema
  let report: any;
  // biome-ignore lint/suspicious/noExplicitAny: checked against its schema
  let osPackages: readonly any[];

  beforeAll(async () => {
    if (!areThere) throw new Error(`the fixtures are required, and not in ${fixtures}: set STOWAGE_FIXTURES`);
    truth = JSON.parse(gunzipSync(readFileSync(join(fixtures, "truth", `${name}.json.gz`))).toString());
    report = await json("analyze", "analyze", `oci-archive:${join(fixtures, "images", `${name}.oci.tar`)}`);
    osPackages = await packagesOf("os");
  });

  async function packagesOf(type: string) {
    return (await json("image-content-packages", "image", "content", truth.manifestDigest, type)).packages;
  }

  it("is the image that it says", async () => {
    expect(report).toMatchObject({
      digest: truth.manifestDigest,
      imageId: truth.imageId,
      platform: `linux/${truth.architecture}`,
      distribution: distributions[name],
      files: truth.files.length,
    });
    expect(
      report.layers.map(({ blobDigest, mediaType, blobBytes, diffId }: Record<string, unknown>) => ({
        digest: blobDigest,
        mediaType,
        size: blobBytes,
        diffId,
      })),
    ).toEqual(truth.layers);
  });

  it("has these files, with these attributes and digests", async () => {
    const { files } = await json("image-content-files", "image", "content", truth.manifestDigest, "files");
    const implied = new Set(truth.files.filter((file) => file.implied).map(({ path }) => path));
    const found = (files as FoundFile[]).map((file) => describeFound(file, implied));
    expect(byPath(found)).toEqual(byPath(truth.files.map(describeTrue)));
    expect(inodesOf(files)).toEqual(trueInodesOf(truth.files));
  });

  it("has these packages of apk, with these files", () => {
    const found = osPackages
      .filter(({ type }) => type === "apk")
      .map((one) => ({
        name: one.name,
        version: one.version,
        license: one.licenses.join(),
        ownedFiles: ((one.files as OwnedFile[] | undefined) ?? [])
          .filter((file) => !file.isDirectory)
          .map(({ path }) => `/${path}`)
          .sort(),
      }));
    const told = truth.packages.apk ?? [];
    expect(byName(found)).toEqual(
      byName(told.map((one) => ({ ...one, ownedFiles: [...one.ownedFiles].sort() }) as { name: string })),
    );
  });

  it("has these packages of dpkg, with these files", () => {
    const found = osPackages
      .filter(({ type }) => type === "dpkg")
      .map((one) => ({
        name: one.name,
        version: one.version,
        architecture: one.architecture,
        source: one.source?.name,
        sourceVersion: one.source?.version,
        installedSizeKiB: one.sizeBytes / 1024,
        maintainer: one.origin,
        status: "installed",
        ownedPaths: one.files.map(({ path }: OwnedFile) => `/${path}`).sort(),
      }));
    const told = (truth.packages.dpkg ?? []).map((one) => ({
      ...one,
      // What does not begin with a slash is dpkg-query's remark on a diversion; the root is everybody's.
      ownedPaths: one.ownedPaths.filter((path: string) => path.startsWith("/") && path !== "/.").sort(),
    }));
    expect(byName(found)).toEqual(byName(told));
  });

  it("has these packages of rpm, with these files, their digests, modes and owners", () => {
    const algorithms: Readonly<Record<string, string>> = { md5: "1", sha256: "8" };
    const found = osPackages
      .filter(({ type }) => type === "rpm")
      .map((one) => ({
        name: one.name,
        epoch: one.epoch ?? 0,
        version: one.upstreamVersion,
        release: one.release,
        architecture: one.architecture,
        sourceRpm: `${one.source.name}-${one.source.version}.src.rpm`,
        license: one.licenses.join(),
        size: one.sizeBytes,
        vendor: one.origin,
        ownedFiles: (one.files ?? []).map((file: OwnedFile) => {
          const [algorithm, digest] = file.digest?.split(":") ?? [];
          return {
            path: `/${file.path}`,
            size: file.sizeBytes,
            algorithm: algorithm === undefined ? undefined : algorithms[algorithm],
            digest: digest ?? null,
            mode: file.mode?.toString(8),
            user: file.user,
            group: file.group,
            isConfiguration: file.isConfiguration === true,
            isGhost: file.isGhost === true,
          };
        }),
      }));
    const told = (truth.packages.rpm ?? []).map(({ fileDigestAlgo, modularityLabel: _, ...one }) => ({
      ...one,
      epoch: one.epoch ?? 0,
      ownedFiles: one.ownedFiles.map(({ flags, ...file }: { flags: string; digest: string | null }) => ({
        ...file,
        algorithm: file.digest === null ? undefined : (fileDigestAlgo ?? "1"),
        isConfiguration: flags.includes("c"),
        isGhost: flags.includes("g"),
      })),
    }));
    expect(byName(found.map(withSortedFiles))).toEqual(byName(told.map(withSortedFiles)));
  });

  it("has these packages of npm and Python", async () => {
    const found = (items: { name: string; version: string; licenses: string[]; location: string }[]) =>
      items.map(({ name, version, licenses, location }) => ({
        name,
        version,
        license: licenses.join(),
        path: `/${location}`,
      }));
    // npm ls tells the project itself too, which nothing has installed.
    const npm = (truth.packages.npm ?? []).filter(({ path }) => path.includes("/node_modules/"));
    expect(byName(found(await packagesOf("npm")))).toEqual(byName(npm));
    const python = truth.packages.python ?? [];
    expect(
      byName(found(await packagesOf("python")).map((one) => ({ ...one, path: one.path.replace(/\/[^/]*$/, "") }))),
    ).toEqual(byName(python));
  });
});

interface OwnedFile {
  readonly path: string;
  readonly digest?: string;
  readonly mode?: number;
  readonly user?: string;
  readonly group?: string;
  readonly sizeBytes?: number;
  readonly isDirectory?: boolean;
  readonly isConfiguration?: boolean;
  readonly isGhost?: boolean;
}

function describeTrue(file: TrueFile): { readonly path: string } {
  if (file.implied) return { path: file.path, type: "dir" } as { readonly path: string };
  const { sameInodeAs: _, ...rest } = file;
  return rest;
}

/** `implied`: paths of directories that no layer names, compared by existence only. */
function describeFound(file: FoundFile, implied: ReadonlySet<string>): { readonly path: string } {
  const path = `/${file.path}`;
  const { sizeBytes, hardlinkOf: _, layer: _layer, ...rest } = { mtime: undefined, ...file, path };
  if (implied.has(path)) return { path, type: file.type } as { readonly path: string };
  const { mtime: _mtime, ...described } = rest;
  return { ...described, ...(file.type === "file" ? { size: sizeBytes } : {}) };
}

/** Groups of names that share an inode, as unpacking left them. */
function trueInodesOf(files: readonly TrueFile[]): string[][] {
  const groups = new Map<string, string[]>();
  for (const { path, sameInodeAs } of files) {
    if (sameInodeAs !== undefined) groups.set(sameInodeAs, [...(groups.get(sameInodeAs) ?? []), path]);
  }
  return sorted([...groups.values()]);
}

/**
 * The same as stowage tells it: a name, and the names that say to be links of it. A link's target may be gone or another file by now; then the
 * links are still each other's.
 */
function inodesOf(files: readonly FoundFile[]): string[][] {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const groups = new Map<string, string[]>();
  for (const { path, hardlinkOf, sha256, layer } of files) {
    if (hardlinkOf === undefined) continue;
    const key = `${layer} ${hardlinkOf}`;
    const target = byPath.get(hardlinkOf);
    const isTarget = target?.type === "file" && target.sha256 === sha256 && target.layer <= layer;
    groups.set(key, [...(groups.get(key) ?? (isTarget ? [`/${hardlinkOf}`] : [])), `/${path}`]);
  }
  return sorted([...groups.values()].filter((group) => group.length > 1));
}

function sorted(groups: readonly string[][]): string[][] {
  return groups.map((group) => group.toSorted()).toSorted((a, b) => ((a[0] ?? "") < (b[0] ?? "") ? -1 : 1));
}

function byName<T extends { readonly name: string }>(items: readonly T[]): T[] {
  const key = (item: T) => JSON.stringify(Object.entries(item).toSorted());
  return items.toSorted((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : key(a) < key(b) ? -1 : 1));
}

/** By the bytes of the path; stowage lists what lies in a directory right after it. */
function byPath<T extends { readonly path: string }>(items: readonly T[]): T[] {
  return items.toSorted((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)));
}

function withSortedFiles<T extends { readonly ownedFiles: readonly { readonly path: string }[] }>(one: T): T {
  return { ...one, ownedFiles: one.ownedFiles.toSorted((a, b) => (a.path < b.path ? -1 : 1)) };
}
