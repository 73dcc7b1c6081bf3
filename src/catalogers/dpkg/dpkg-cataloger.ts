import {
  type Cataloger,
  type Distribution,
  decodePathText,
  type Finding,
  type LayerFinding,
  type OwnedReference,
  type Package,
  type SelectedFile,
} from "../../layer/index.ts";
import { distroQualifier, packageUrl } from "../purl.ts";
import { finding, ProblemList, packagesMax, present, visibleFindings } from "../record.ts";
import { wholeNumber } from "../text.ts";
import { parseCopyright, parseDiversions, parseList, parseMd5sums } from "./file-lists.ts";
import { type DpkgPackage, hasFilesInState, parseStatus } from "./status.ts";

const ROOT = "var/lib/dpkg/";
const STATUS = `${ROOT}status`;
const STATUS_DIRECTORY = `${ROOT}status.d/`;
const UPDATES = `${ROOT}updates/`;
const INFO = `${ROOT}info/`;
const DIVERSIONS = `${ROOT}diversions`;
const DOCUMENTATION = "usr/share/doc/";
const COPYRIGHT_BYTES_MAX = 1024 * 1024;

/**
 * Packages of Debian and its relatives: dpkg's `status` with the journal of an interrupted run over it, and the `status.d` files of distroless
 * images, which stand beside it. Findings are of kind `package` (in status, status.d or updates), `list`, `md5sums`, `copyright`, `diversions`.
 *
 * Owned paths are as the package ships them: merged `/usr` and diversions (`other.diversions`) are not applied.
 * Can't know: modes, owners and sizes of files; licences of packages whose copyright file is not machine-readable.
 */
export const dpkgCataloger: Cataloger = {
  name: "dpkg",
  version: 2,
  wants: [
    STATUS,
    `${STATUS_DIRECTORY}*`,
    `${UPDATES}*`,
    `${INFO}*.list`,
    `${INFO}*.md5sums`,
    DIVERSIONS,
    `${DOCUMENTATION}*/copyright`,
  ],
  fileBytesMax: 64 * 1024 * 1024,

  *catalog(files) {
    let left = packagesMax;
    for (const file of files) {
      const problems = new ProblemList(file.path);
      for (const found of findingsIn(file, problems)) {
        if (found.kind === "package") {
          if (left === 0) {
            problems.add(`more than ${packagesMax} packages in one layer: the rest was left out`);
            break;
          }
          left -= 1;
        }
        yield found;
      }
      yield* problems.findings();
    }
  },

  reconcile(findings, image, distribution) {
    const visible = visibleFindings(findings, image);
    const byPath = new Map<string, LayerFinding>();
    for (const stored of visible)
      if (stored.kind !== "package" && stored.kind !== "problem") byPath.set(stored.path, stored);
    const diversions = byPath.get(DIVERSIONS)?.value;
    return {
      packages: installed(visible).map((stored) => toPackage(stored, byPath, distribution)),
      ...(diversions === undefined ? {} : { other: { diversions } }),
    };
  },
};

function* findingsIn(file: SelectedFile, problems: ProblemList): Generator<Finding> {
  const path = file.path;
  const text = () => decodePathText(file.read());
  if (path === STATUS || path.startsWith(UPDATES)) {
    const isJournal = path !== STATUS;
    // Entries of the journal have names of digits only; others are leftovers of writing one.
    if (isJournal && wholeNumber(path.slice(UPDATES.length)) === undefined) return;
    for (const found of parseStatus(text(), "not-installed", problems)) {
      if (isJournal || hasFilesInState(found.package.state)) yield finding("package", path, found.package, found.files);
    }
  } else if (path === DIVERSIONS) {
    const diversions = parseDiversions(text(), problems);
    if (diversions.length > 0) yield finding("diversions", path, diversions);
  } else if (path.startsWith(DOCUMENTATION)) {
    if (file.sizeBytes > COPYRIGHT_BYTES_MAX) return;
    const licenses = parseCopyright(text());
    if (licenses.length > 0) yield finding("copyright", path, licenses);
  } else if (path.endsWith(".md5sums")) {
    yield finding("md5sums", path, null, parseMd5sums(text(), problems));
  } else if (path.startsWith(INFO)) {
    yield finding("list", path, null, parseList(text(), problems));
  } else {
    for (const found of parseStatus(text(), "installed", problems)) {
      if (hasFilesInState(found.package.state)) yield finding("package", path, found.package, found.files);
    }
  }
}

/** What is installed: `status`, the journal applied over it in order, and each file in `status.d`. */
function installed(visible: readonly LayerFinding[]): LayerFinding[] {
  const stanzas = visible.filter((stored) => stored.kind === "package");
  const byName = new Map<string, Map<string, LayerFinding>>();
  const put = (stored: LayerFinding) => {
    const found = stored.value as DpkgPackage;
    let instances = byName.get(found.name);
    // Of a package that is not `Multi-Arch: same` there is one instance: a stanza of another architecture replaces it.
    if (instances === undefined || (found.isCoinstallable !== true && stored.path !== STATUS)) {
      instances = new Map();
      byName.set(found.name, instances);
    }
    instances.set(found.architecture ?? "", stored);
  };
  for (const stored of stanzas) if (stored.path === STATUS) put(stored);
  const journal = stanzas.filter((stored) => stored.path.startsWith(UPDATES));
  const number = (stored: LayerFinding) => Number(stored.path.slice(UPDATES.length));
  for (const stored of journal.sort((a, b) => number(a) - number(b))) {
    put(stored);
  }
  const fromStatus = [...byName.values()]
    .flatMap((instances) => [...instances.values()])
    .filter((stored) => hasFilesInState((stored.value as DpkgPackage).state));
  return [...fromStatus, ...stanzas.filter((stored) => stored.path.startsWith(STATUS_DIRECTORY))];
}

function toPackage(
  stored: LayerFinding,
  byPath: ReadonlyMap<string, LayerFinding>,
  distribution: Distribution | undefined,
): Package {
  const found = stored.value as DpkgPackage;
  const { epoch, upstreamVersion, release } = splitVersion(found.version);
  const own = isDebian(distribution) ? distribution : undefined;
  const copyright = byPath.get(`${DOCUMENTATION}${found.name}/copyright`)?.value as readonly string[] | undefined;
  return present<Package>({
    type: "dpkg",
    name: found.name,
    version: found.version,
    epoch,
    upstreamVersion,
    release,
    architecture: found.architecture,
    source: { name: found.source?.name ?? found.name, version: found.source?.version ?? found.version },
    licenses: copyright ?? [],
    sizeBytes: found.sizeBytes,
    origin: found.maintainer,
    description: found.description,
    homepage: found.homepage,
    purl: packageUrl({
      type: "deb",
      namespace: own?.id,
      name: found.name,
      version: found.version,
      qualifiers: {
        arch: found.architecture,
        distro: distroQualifier(own),
        upstream:
          found.source?.version === undefined ? found.source?.name : `${found.source.name}@${found.source.version}`,
      },
    }),
    location: stored.path,
    layer: stored.layer,
    cataloger: "dpkg",
    owned: ownedBy(stored, found, byPath),
  });
}

/** The list, then what adds digests to it, then the configuration files that the stanza itself names. */
function ownedBy(
  stored: LayerFinding,
  found: DpkgPackage,
  byPath: ReadonlyMap<string, LayerFinding>,
): readonly OwnedReference[] {
  const names = [`${INFO}${found.name}:${found.architecture ?? ""}`, `${INFO}${found.name}`];
  const stem = names.find((name) => byPath.has(`${name}.list`) || byPath.has(`${name}.md5sums`)) ?? "";
  const beside = stored.path.startsWith(STATUS_DIRECTORY) ? stored.path : stem;
  const lists = [byPath.get(`${stem}.list`), byPath.get(`${beside}.md5sums`), stored];
  return lists.flatMap((list) => (list?.hasFiles ? [{ layer: list.layer, ordinal: list.ordinal }] : []));
}

/** `[epoch:]upstream[-revision]`. @see deb-version(7) */
function splitVersion(version: string): {
  epoch: number | undefined;
  upstreamVersion: string;
  release: string | undefined;
} {
  const colon = version.indexOf(":");
  const epoch = colon < 0 ? undefined : wholeNumber(version.slice(0, colon));
  const rest = epoch === undefined ? version : version.slice(colon + 1);
  const dash = rest.lastIndexOf("-");
  return {
    epoch,
    upstreamVersion: dash < 0 ? rest : rest.slice(0, dash),
    release: dash < 0 ? undefined : rest.slice(dash + 1),
  };
}

function isDebian(distribution: Distribution | undefined): boolean {
  return distribution !== undefined && (distribution.id === "debian" || distribution.like.includes("debian"));
}
