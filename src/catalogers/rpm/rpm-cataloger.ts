import type { Cataloger, Distribution, Finding, ImageFindings, LayerFinding, Package } from "../../layer/index.ts";
import { distroQualifier, packageUrl } from "../purl.ts";
import { finding, ProblemList, packagesMax, present, problem, visibleFindings } from "../record.ts";
import { RpmHeader } from "./header.ts";
import { filesOf, packageOf, type RpmPackage } from "./package-header.ts";
import { openSqlite } from "./sqlite-pages.ts";
import { findTable, readRows } from "./sqlite-table.ts";

/** Where the database may be, in the order in which one is looked for; the later ones are links to the first where it exists. */
const DATABASES = ["usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite", "usr/share/rpm/rpmdb.sqlite"];
const logOf = (database: string) => `${database}-wal`;

/**
 * Packages of Fedora, Red Hat, SUSE and their relatives, from rpm's SQLite database and its write-ahead log. Findings are of kind `package`, and
 * `log` for a log that is not empty.
 *
 * Can't know: databases of before rpm 4.16 (`Packages`, `Packages.db`), which are not read.
 */
export const rpmCataloger: Cataloger = {
  name: "rpm",
  version: 3,
  wants: DATABASES.flatMap((database) => [database, logOf(database)]),
  fileBytesMax: 256 * 1024 * 1024,

  *catalog(files) {
    for (const path of DATABASES) {
      const database = files.get(path);
      const log = files.get(logOf(path));
      if (log !== undefined && log.sizeBytes > 0) yield finding("log", log.path, null);
      if (database !== undefined) yield* catalogDatabase(path, database.read(), log?.read());
    }
  },

  reconcile(findings, image, distribution) {
    const visible = visibleFindings(findings, image);
    const [first, ...others] = DATABASES.filter((path) => image.layerOf(path) !== undefined);
    const notes = others.map((path) => note(path, `a second package database beside ${first}: not read`));
    for (const path of DATABASES) {
      const log = image.layerOf(logOf(path));
      if (log !== undefined && log !== image.layerOf(path)) {
        notes.push(
          note(
            logOf(path),
            "the log of a package database that lies in another layer: not applied, the newest packages may be missing",
          ),
        );
      }
    }
    return {
      packages: visible
        .filter((stored) => stored.kind === "package" && stored.path === first)
        .map((stored) => toPackage(stored, distribution)),
      notes,
    };
  },
};

function note(path: string, text: string): NonNullable<ImageFindings["notes"]>[number] {
  return { code: "cataloger-problem", path, text };
}

function* catalogDatabase(path: string, file: Buffer, wal: Buffer | undefined): Generator<Finding> {
  if (file.length === 0) return;
  const pages = openSqlite(file, wal);
  if (typeof pages === "string") return yield problem(path, pages);
  const problems = new ProblemList(path);
  const table = findTable(pages, "Packages", problems);
  if (typeof table === "string") problems.add(table);
  else {
    let left = packagesMax;
    for (const row of readRows(pages, table, problems)) {
      const blob = row[1];
      const header = blob instanceof Buffer ? RpmHeader.parse(blob) : "no header";
      if (typeof header === "string") {
        problems.add(`a package's header is damaged: ${header}`);
        continue;
      }
      const found = packageOf(header, problems);
      if (found === undefined) continue;
      if (left === 0) {
        problems.add(`more than ${packagesMax} packages in one layer: the rest was left out`);
        break;
      }
      left -= 1;
      yield finding("package", path, found, filesOf(header, problems));
    }
  }
  yield* problems.findings();
}

function toPackage(stored: LayerFinding, distribution: Distribution | undefined): Package {
  const found = stored.value as RpmPackage;
  const version = `${found.version}-${found.release}`;
  return present<Package>({
    type: "rpm",
    name: found.name,
    // An absent epoch counts as 0, so 0 is not shown: the same version must not look like two.
    version: found.epoch ? `${found.epoch}:${version}` : version,
    epoch: found.epoch,
    upstreamVersion: found.version,
    release: found.release,
    architecture: found.architecture,
    source: parseSourceRpm(found.sourceRpm),
    licenses: found.license === undefined ? [] : [found.license],
    sizeBytes: found.sizeBytes,
    origin: found.vendor,
    description: found.description,
    homepage: found.homepage,
    purl: packageUrl({
      type: "rpm",
      namespace: purlNamespace(distribution),
      name: found.name,
      version,
      qualifiers: {
        arch: found.architecture,
        epoch: found.epoch ? String(found.epoch) : undefined,
        distro: distroQualifier(distribution),
        upstream: found.sourceRpm,
        rpmmod: found.modularity,
      },
    }),
    location: stored.path,
    layer: stored.layer,
    cataloger: "rpm",
    owned: stored.hasFiles ? [{ layer: stored.layer, ordinal: stored.ordinal }] : [],
  });
}

/** `NAME-VERSION-RELEASE.src.rpm`, where the name may hold dashes. */
function parseSourceRpm(file: string | undefined): { readonly name: string; readonly version?: string } | undefined {
  const stem = file?.replace(/\.(?:no)?src\.rpm$/, "");
  if (stem === undefined || stem === file) return undefined;
  const release = stem.lastIndexOf("-");
  const version = stem.lastIndexOf("-", release - 1);
  return version > 0 ? { name: stem.slice(0, version), version: stem.slice(version + 1) } : undefined;
}

function purlNamespace(distribution: Distribution | undefined): string | undefined {
  const id = distribution?.id;
  if (id === "rhel") return "redhat";
  return id?.startsWith("opensuse") ? "opensuse" : id;
}
