import {
  type Cataloger,
  decodePathText,
  type Finding,
  type LayerFinding,
  type Package,
  type SelectedFile,
} from "../../layer/index.ts";
import { packageUrl } from "../purl.ts";
import { finding, ProblemList, packagesMax, present, visibleFindings } from "../record.ts";

import { parseInstalledFiles, parseRecord } from "./installed-files.ts";
import { type PythonPackage, parseMetadata } from "./metadata.ts";

/**
 * Installed Python distributions: `METADATA` of a dist-info directory, `PKG-INFO` of an egg-info directory, or an `*.egg-info` file (distutils); with
 * the files that `RECORD` or `installed-files.txt` beside it lists. Findings are of kind `package` and `files`.
 *
 * Left out: directories that begin with `~` (what pip moved aside in an uninstallation that was interrupted), and the interpreter's own egg-info,
 * `Python`, which no Python tool installed and none can upgrade: interpreters are found as binaries and system packages.
 */
export const pythonCataloger: Cataloger = {
  name: "python",
  version: 2,
  wants: [
    "**/*dist-info/METADATA",
    "**/*DIST-INFO/METADATA",
    "**/*egg-info/PKG-INFO",
    "**/*EGG-INFO/PKG-INFO",
    "**/*.egg-info",
    "**/*dist-info/RECORD",
    "**/*egg-info/installed-files.txt",
  ],
  fileBytesMax: 16 * 1024 * 1024,

  *catalog(files) {
    let left = packagesMax;
    for (const file of files) {
      const segments = file.path.split("/");
      if (segments.some((segment) => segment.startsWith("~"))) continue;
      const problems = new ProblemList(file.path);
      const found = findingIn(file, segments.at(-1) ?? "", problems);
      if (found?.kind === "package") left -= 1;
      if (left < 0) problems.add(`more than ${packagesMax} packages in one layer: the rest was left out`);
      else if (found !== undefined) yield found;
      yield* problems.findings();
      if (left < 0) break;
    }
  },

  reconcile(findings, image) {
    const visible = visibleFindings(findings, image);
    const lists = new Map(visible.flatMap((stored) => (stored.kind === "files" ? [[stored.path, stored]] : [])));
    return {
      packages: visible.filter((stored) => stored.kind === "package").map((stored) => toPackage(stored, lists)),
    };
  },
};

function findingIn(file: SelectedFile, base: string, problems: ProblemList): Finding | undefined {
  const text = decodePathText(file.read());
  if (base === "RECORD") return finding("files", file.path, null, parseRecord(text, file.path, problems));
  if (base === "installed-files.txt")
    return finding("files", file.path, null, parseInstalledFiles(text, file.path, problems));
  const found = parseMetadata(text);
  if (found === undefined) problems.add("no usable name or version");
  return found === undefined || found.name === "Python" ? undefined : finding("package", file.path, found);
}

function toPackage(stored: LayerFinding, lists: ReadonlyMap<string, LayerFinding>): Package {
  const found = stored.value as PythonPackage;
  const directory = stored.path.slice(0, stored.path.lastIndexOf("/") + 1);
  const list = stored.path.endsWith(".egg-info")
    ? undefined
    : (lists.get(`${directory}RECORD`) ?? lists.get(`${directory}installed-files.txt`));
  return present<Package>({
    type: "python",
    name: found.name,
    version: found.version,
    licenses: found.licenses,
    origin: found.author,
    description: found.description,
    homepage: found.homepage,
    purl: packageUrl({ type: "pypi", name: found.name, version: found.version }),
    location: stored.path,
    layer: stored.layer,
    cataloger: "python",
    owned: list?.hasFiles ? [{ layer: list.layer, ordinal: list.ordinal }] : [],
  });
}
