import {
  type Cataloger,
  type Distribution,
  decodePathText,
  type LayerFinding,
  type Package,
} from "../../layer/index.ts";
import { distroQualifier, packageUrl } from "../purl.ts";
import { finding, ProblemList, packagesMax, present, visibleFindings } from "../record.ts";

import { type ApkPackage, parseInstalled } from "./installed-database.ts";

const DATABASE = "lib/apk/db/installed";

/**
 * Packages of Alpine and its relatives, from apk's database of what is installed.
 *
 * Can't know: sizes of files, and which are configuration (apk decides that by path).
 */
export const apkCataloger: Cataloger = {
  name: "apk",
  version: 2,
  wants: [`**/${DATABASE}`],
  fileBytesMax: 64 * 1024 * 1024,

  *catalog(files) {
    let left = packagesMax;
    for (const file of files) {
      const problems = new ProblemList(file.path);
      for (const found of parseInstalled(decodePathText(file.read()), rootOf(file.path), problems)) {
        if (left === 0) {
          problems.add(`more than ${packagesMax} packages in one layer: the rest was left out`);
          break;
        }
        left -= 1;
        yield finding("package", file.path, found.package, found.files);
      }
      yield* problems.findings();
    }
  },

  reconcile(findings, image, distribution) {
    // With merged /usr, `lib` is a link and the database is found by its real path; if both are files, apk itself opens the one in `lib`.
    const visible = visibleFindings(findings, image).filter(
      (one) => !one.path.endsWith(`usr/${DATABASE}`) || image.layerOf(rootOf(one.path) + DATABASE) === undefined,
    );
    return {
      packages: visible.filter((one) => one.kind === "package").map((one) => toPackage(one, distribution)),
    };
  },
};

/** The root directory that a database belongs to: empty, or a path with a trailing slash. */
function rootOf(path: string): string {
  const above = path.slice(0, -DATABASE.length);
  return above === "usr/" || above.endsWith("/usr/") ? above.slice(0, -"usr/".length) : above;
}

function toPackage(stored: LayerFinding, distribution: Distribution | undefined): Package {
  const found = stored.value as ApkPackage;
  // A root directory below another's (a chroot) may be of any distribution.
  const own = rootOf(stored.path) === "" ? distribution : undefined;
  const cut = found.version.lastIndexOf("-r");
  return present<Package>({
    type: "apk",
    name: found.name,
    version: found.version,
    upstreamVersion: cut > 0 ? found.version.slice(0, cut) : found.version,
    release: cut > 0 ? found.version.slice(cut + 1) : undefined,
    architecture: found.architecture,
    source: found.origin === undefined ? undefined : { name: found.origin },
    licenses: found.license === undefined ? [] : [found.license],
    sizeBytes: found.sizeBytes,
    origin: found.maintainer,
    description: found.description,
    homepage: found.homepage,
    purl: packageUrl({
      type: "apk",
      namespace: own?.id,
      name: found.name,
      version: found.version,
      qualifiers: {
        arch: found.architecture,
        distro: distroQualifier(own),
        upstream: found.origin === found.name ? undefined : found.origin,
      },
    }),
    location: stored.path,
    layer: stored.layer,
    cataloger: "apk",
    owned: stored.hasFiles ? [{ layer: stored.layer, ordinal: stored.ordinal }] : [],
  });
}
