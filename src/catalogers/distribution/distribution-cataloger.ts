import {
  type Cataloger,
  type Distribution,
  decodePathText,
  type JsonValue,
  type LayerFinding,
} from "../../layer/index.ts";
import { present, problem, visibleFindings } from "../record.ts";
import { fieldText, linesOf, nameText } from "../text.ts";
import { parseOsRelease } from "./os-release.ts";

const TEXT_BYTES_MAX = 64 * 1024;

/** What one file says; any field may be missing. */
type Statement = {
  readonly id?: string;
  readonly version?: string;
  readonly like?: readonly string[];
  readonly prettyName?: string;
};

/** In the order in which they are asked. */
const SOURCES: readonly { readonly path: string; readonly read: (text: string) => Statement }[] = [
  { path: "etc/os-release", read: fromOsRelease },
  { path: "usr/lib/os-release", read: fromOsRelease },
  { path: "etc/system-release-cpe", read: fromCpe },
  { path: "etc/redhat-release", read: fromRedHatRelease },
  { path: "etc/alpine-release", read: (text) => identified("alpine", text) },
  { path: "etc/debian_version", read: (text) => identified("debian", debianVersion(text)) },
];

/** A program that is all of its image's userland: known by its name alone, so without a version. */
const BUSYBOX = ["bin/busybox", "usr/bin/busybox"];

/**
 * Which distribution an image is of: the first of the files above that names one.
 *
 * `version` is `VERSION_ID`, else what Debian's `debian_version` stands for (testing and sid have no `VERSION_ID`), else `BUILD_ID`; empty if no
 * file tells it. A link `etc/os-release` needs no following: it leads to `usr/lib/os-release`, which is asked next.
 */
export const distributionCataloger: Cataloger = {
  name: "distribution",
  version: 1,
  wants: [...SOURCES.map((source) => source.path), ...BUSYBOX],
  // Busybox, of which nothing is read, must not count as too large.
  fileBytesMax: 16 * 1024 * 1024,

  *catalog(files) {
    for (const source of SOURCES) {
      const file = files.get(source.path);
      if (file === undefined) continue;
      if (file.sizeBytes > TEXT_BYTES_MAX) {
        yield problem(file.path, `larger than ${TEXT_BYTES_MAX} bytes: not read`);
        continue;
      }
      yield { kind: "distribution", path: file.path, value: source.read(decodePathText(file.read())) as JsonValue };
    }
    for (const path of BUSYBOX) if (files.get(path) !== undefined) yield { kind: "busybox", path, value: null };
  },

  reconcile(findings, image) {
    const distribution = decide(visibleFindings(findings, image));
    return { packages: [], ...(distribution === undefined ? {} : { distribution }) };
  },
};

function decide(visible: readonly LayerFinding[]): Distribution | undefined {
  const statements = visible.filter((finding) => finding.kind === "distribution");
  const saidBy = (path: string) => statements.find((finding) => finding.path === path)?.value as Statement | undefined;
  const named = SOURCES.map((source) => saidBy(source.path)).find((statement) => statement?.id !== undefined);
  if (named?.id === undefined) {
    return visible.some((finding) => finding.kind === "busybox") ? { id: "busybox", version: "", like: [] } : undefined;
  }
  const debian = named.id === "debian" ? saidBy("etc/debian_version")?.version : undefined;
  return present<Distribution>({
    id: named.id,
    version: named.version ?? debian ?? "",
    like: named.like ?? [],
    prettyName: named.prettyName,
  });
}

function fromOsRelease(text: string): Statement {
  const fields = parseOsRelease(text);
  const id = nameText(fields.get("ID"))?.toLowerCase();
  return present<Statement>({
    id,
    version: nameText(fields.get("VERSION_ID")) ?? (id === "debian" ? undefined : nameText(fields.get("BUILD_ID"))),
    like: (fields.get("ID_LIKE") ?? "")
      .split(/\s+/)
      .flatMap((like) => nameText(like)?.toLowerCase() ?? [])
      .slice(0, 16),
    prettyName: fieldText(fields.get("PRETTY_NAME")),
  });
}

/** `cpe:/o:redhat:enterprise_linux:7.3:ga:server` or `cpe:2.3:o:redhat:…`. */
function fromCpe(text: string): Statement {
  const fields = firstLine(text).toLowerCase().split(":", 8);
  const at = fields[1] === "2.3" ? 3 : 2;
  const [vendor = "", product = "", version] = fields.slice(at, at + 3);
  const id = redHatFamily(`${vendor} ${product}`);
  return present<Statement>({ id, version: id === undefined || version === "*" ? undefined : nameText(version) });
}

/** `Red Hat Enterprise Linux Server release 7.9 (Maipo)`: the version is the first word after `release`, or the first that begins with a digit. */
function fromRedHatRelease(text: string): Statement {
  const line = firstLine(text);
  const words = line.split(/\s+/);
  const after = words.findIndex((word) => word.toLowerCase() === "release") + 1;
  const id = redHatFamily(line.toLowerCase());
  const version = words.slice(after).find((word) => /^[0-9]/.test(word));
  return present<Statement>({ id, version: nameText(version), prettyName: fieldText(line) });
}

const RED_HAT_FAMILY: readonly (readonly [text: string, id: string])[] = [
  ["centos", "centos"],
  ["fedora", "fedora"],
  ["rocky", "rocky"],
  ["almalinux", "almalinux"],
  ["oracle", "ol"],
  ["red hat", "rhel"],
  ["redhat", "rhel"],
];

function redHatFamily(text: string): string | undefined {
  return RED_HAT_FAMILY.find(([part]) => text.includes(part))?.[1];
}

/** `12.5` → `12`; `trixie/sid` and `sid` → `unstable`: what is not released yet has no number. */
function debianVersion(text: string): string {
  const line = firstLine(text).trim();
  if (/(?:^|\/)sid$/.test(line)) return "unstable";
  return line.split(".", 1)[0] ?? "";
}

function identified(id: string, version: string): Statement {
  return present<Statement>({ id, version: nameText(firstLine(version)) });
}

function firstLine(text: string): string {
  for (const line of linesOf(text)) return line;
  return "";
}
