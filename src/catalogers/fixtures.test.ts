import { describe, expect, it } from "vitest";
import {
  areFixturesRequired,
  findFixtures,
  readFixtureLayers,
  readTruth,
} from "../../test/catalogers/fixture-images.ts";
import { type CatalogerRun, globMatcher, type LayerFiles, runCataloger } from "../../test/catalogers/run-cataloger.ts";
import type { Distribution } from "../layer/index.ts";
import { catalogers } from "./index.ts";

const root = findFixtures();
if (root === undefined && !areFixturesRequired()) {
  process.stderr.write(
    "\nSKIPPED: catalogers against real images: no fixtures (set STOWAGE_FIXTURES to their directory)\n\n",
  );
}

interface Truth {
  readonly packages: Readonly<Record<string, readonly Record<string, unknown>[]>>;
  readonly files: readonly {
    readonly path: string;
    readonly sha1?: string;
    readonly md5?: string;
    readonly sha256?: string;
  }[];
}

async function run(
  name: string,
): Promise<{ of: (cataloger: string) => CatalogerRun; distribution: Distribution | undefined; truth: Truth }> {
  if (root === undefined) throw new Error("the fixtures are required and not there: set STOWAGE_FIXTURES");
  const layers: LayerFiles[] = await readFixtureLayers(
    root,
    name,
    globMatcher(catalogers.flatMap((cataloger) => cataloger.wants)),
  );
  const [first] = catalogers;
  const distribution = first && runCataloger(first, layers).distribution;
  const runs = new Map(catalogers.map((cataloger) => [cataloger.name, runCataloger(cataloger, layers, distribution)]));
  const of = (cataloger: string) => {
    const found = runs.get(cataloger);
    if (found === undefined) throw new Error(`no cataloger ${cataloger}`);
    return found;
  };
  return { of, distribution, truth: readTruth(root, name) as Truth };
}

function problemsOf(run: CatalogerRun): unknown[] {
  return run.findings.flat().filter((finding) => finding.kind === "problem");
}

function by<T>(list: readonly T[], key: (item: T) => string): T[] {
  return [...list].sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
}

describe.skipIf(root === undefined && !areFixturesRequired())("catalogers on real images", () => {
  it("alpine-3.20: distribution, packages and owned files are what apk says", async () => {
    const { of, distribution, truth } = await run("alpine-3.20");
    expect(distribution).toEqual({ id: "alpine", version: "3.20.3", like: [], prettyName: "Alpine Linux v3.20" });
    const apk = of("apk");
    expect(apk.asked).toEqual([["lib/apk/db/installed"]]);
    expect(problemsOf(apk)).toEqual([]);
    const found = apk.packages.map((one) => ({
      name: one.name,
      version: one.version,
      license: one.licenses.join(),
      ownedFiles: apk.owned(one).flatMap((file) => (file.isDirectory ? [] : [`/${file.path}`])),
    }));
    const told = (truth.packages.apk ?? []).map((one) => ({
      ...one,
      ownedFiles: by(one.ownedFiles as string[], String),
    }));
    expect(by(found, (one) => one.name)).toEqual(by(told, (one) => String((one as unknown as { name: string }).name)));
    // The digests are those of the files themselves, but for one that was changed after installation.
    const sha1 = new Map(truth.files.map((file) => [file.path, file.sha1]));
    const differing = apk.packages
      .flatMap((one) => apk.owned(one))
      .filter(
        (file) =>
          file.digest !== undefined &&
          sha1.get(`/${file.path}`) !== undefined &&
          file.digest !== `sha1:${sha1.get(`/${file.path}`)}`,
      );
    expect(differing.map((file) => file.path)).toEqual(["etc/shadow"]);
    expect(apk.packages.find((one) => one.name === "busybox-binsh")).toMatchObject({
      upstreamVersion: "1.36.1",
      release: "r29",
      architecture: "x86_64",
      source: { name: "busybox" },
      purl: "pkg:apk/alpine/busybox-binsh@1.36.1-r29?arch=x86_64&distro=alpine-3.20.3&upstream=busybox",
      location: "lib/apk/db/installed",
      layer: 0,
    });
  });

  it("debian-12-languages: packages and owned files are what dpkg-query says", async () => {
    const { of, distribution, truth } = await run("debian-12-languages");
    expect(distribution).toMatchObject({ id: "debian", version: "12", like: [] });
    const dpkg = of("dpkg");
    expect(problemsOf(dpkg)).toEqual([]);
    const found = dpkg.packages.map((one) => ({
      name: one.name,
      version: one.version,
      architecture: one.architecture,
      source: one.source?.name,
      sourceVersion: one.source?.version,
      installedSizeKiB: (one.sizeBytes ?? 0) / 1024,
      maintainer: one.origin,
      status: "installed",
      ownedPaths: dpkg.owned(one).map((file) => `/${file.path}`),
    }));
    // What does not begin with a slash is dpkg-query's remark on a diversion.
    const told = (truth.packages.dpkg ?? []).map((one) => ({
      ...one,
      ownedPaths: by(
        (one.ownedPaths as string[]).filter((path) => path !== "/." && path.startsWith("/")),
        String,
      ),
    }));
    const key = (one: object) =>
      JSON.stringify([(one as { name: string }).name, (one as { architecture: string }).architecture]);
    expect(by(found, key)).toEqual(by(told, key));
    expect(dpkg.packages.every((one) => one.purl.startsWith("pkg:deb/debian/"))).toBe(true);
  });

  it.each(["rpm-sqlite", "rpm-mariner"])("%s: packages and owned files are what rpm says", async (name) => {
    const { of, truth } = await run(name);
    const rpm = of("rpm");
    expect(rpm.notes).toEqual([]);
    expect(problemsOf(rpm)).toEqual([]);
    const algorithms: Readonly<Record<string, string>> = { md5: "1", sha256: "8" };
    const found = rpm.packages.map((one) => ({
      name: one.name,
      epoch: one.epoch ?? 0,
      version: one.upstreamVersion,
      release: one.release,
      architecture: one.architecture,
      source: one.source && `${one.source.name}-${one.source.version}.src.rpm`,
      license: one.licenses.join(),
      size: one.sizeBytes,
      vendor: one.origin,
      ownedFiles: rpm.owned(one).map((file) => ({
        path: `/${file.path}`,
        size: file.sizeBytes,
        digest: file.digest?.split(":")[1] ?? null,
        algorithm: file.digest === undefined ? undefined : algorithms[file.digest.split(":")[0] ?? ""],
        mode: file.mode?.toString(8),
        user: file.user,
        group: file.group,
        isConfiguration: file.isConfiguration === true,
        isGhost: file.isGhost === true,
      })),
    }));
    type File = Record<"path" | "digest" | "mode" | "user" | "group" | "flags", string> & { size: number };
    const told = (truth.packages.rpm ?? []).map((one) => ({
      name: one.name,
      epoch: one.epoch ?? 0,
      version: one.version,
      release: one.release,
      architecture: one.architecture,
      source: one.sourceRpm,
      license: one.license,
      size: one.size,
      vendor: one.vendor,
      ownedFiles: by(one.ownedFiles as File[], (file) => file.path).map(({ flags, ...file }) => ({
        ...file,
        algorithm: file.digest === null ? undefined : (one.fileDigestAlgo ?? "1"),
        isConfiguration: flags.includes("c"),
        isGhost: flags.includes("g"),
      })),
    }));
    const key = (one: object) => JSON.stringify(Object.values(one).slice(0, 5));
    expect(by(found, key)).toEqual(by(told, key));
  });

  it("debian-12-languages: npm and Python packages are what npm and importlib.metadata say", async () => {
    const { of, truth } = await run("debian-12-languages");
    const npm = of("npm").packages.map((one) => ({
      name: one.name,
      version: one.version,
      license: one.licenses.join(),
      path: `/${one.location}`,
    }));
    // npm ls tells the project too, which nothing has installed.
    const project = "/srv/app/package.json";
    const told = (truth.packages.npm ?? []).filter((one) => one.path !== project);
    expect(told).toHaveLength(73);
    const key = (one: object) => (one as { path: string }).path;
    expect(by(npm, key)).toEqual(by(told, key));

    const python = of("python").packages.map((one) => ({
      name: one.name,
      version: one.version,
      license: one.licenses.join(),
      path: `/${one.location.slice(0, one.location.lastIndexOf("/"))}`,
    }));
    expect(by(python, key)).toEqual(by(truth.packages.python ?? [], key));
    for (const one of [...of("npm").packages, ...of("python").packages]) expect(one.layer).toBe(1);
  });

  it("debian-12-languages: the RECORD of a distribution lists its files with their digests", async () => {
    const { of, truth } = await run("debian-12-languages");
    const python = of("python");
    const owned = python.owned(python.packages.find((one) => one.name === "chardet"));
    const sha256 = new Map(truth.files.map((file) => [file.path, file.sha256]));
    const there = owned.filter((file) => file.digest !== undefined && sha256.has(`/${file.path}`));
    expect(there.length).toBeGreaterThan(10);
    expect(there.map((file) => file.digest)).toEqual(there.map((file) => `sha256:${sha256.get(`/${file.path}`)}`));
  });
});
