import { type Cataloger, decodePathText, type LayerFinding, type Package } from "../../layer/index.ts";
import { packageUrl } from "../purl.ts";
import { finding, packagesMax, present, problem, visibleFindings } from "../record.ts";

import { type NpmPackage, parsePackageJson } from "./package-json.ts";

/**
 * Installed npm packages: the `package.json` right below `node_modules/NAME` or `node_modules/@SCOPE/NAME`, also inside pnpm's store.
 *
 * Not packages here: an application's own `package.json` (nothing installed it, and it has no registry identity; syft reports it all the same), and
 * the `package.json` of fixtures, templates and module stubs elsewhere in a package. Links (workspaces, pnpm's `node_modules/NAME`) are not files, so
 * each package counts once, where it really is. An alias is called what its `package.json` says.
 */
export const npmCataloger: Cataloger = {
  name: "npm",
  version: 2,
  wants: ["**/node_modules/*/package.json", "**/node_modules/@*/*/package.json"],
  fileBytesMax: 2 * 1024 * 1024,

  *catalog(files) {
    let left = packagesMax;
    for (const file of files) {
      if (!isInstalled(file.path)) continue;
      const found = parsePackageJson(decodePathText(file.read()));
      if (found === undefined) continue;
      if (typeof found === "string") {
        yield problem(file.path, found);
        continue;
      }
      if (left === 0) {
        yield problem(file.path, `more than ${packagesMax} packages in one layer: the rest was left out`);
        break;
      }
      left -= 1;
      yield finding("package", file.path, found);
    }
  },

  reconcile(findings, image) {
    return {
      packages: visibleFindings(findings, image)
        .filter((stored) => stored.kind === "package")
        .map(toPackage),
    };
  },
};

/** Not a scope's directory, and none of those that begin with a dot: npm's own, and packages moved aside by an interrupted installation. */
function isInstalled(path: string): boolean {
  const directory = path.split("/").at(-2) ?? "";
  return !directory.startsWith(".") && !directory.startsWith("@");
}

function toPackage(stored: LayerFinding): Package {
  const found = stored.value as NpmPackage;
  const slash = found.name.indexOf("/");
  return present<Package>({
    type: "npm",
    name: found.name,
    version: found.version,
    licenses: found.licenses,
    origin: found.author,
    description: found.description,
    homepage: found.homepage,
    purl: packageUrl({
      type: "npm",
      namespace: slash < 0 ? undefined : found.name.slice(0, slash),
      name: found.name.slice(slash + 1),
      version: found.version,
    }),
    location: stored.path,
    layer: stored.layer,
    cataloger: "npm",
    owned: [],
  });
}
