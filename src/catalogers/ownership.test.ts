import { expect, it } from "vitest";
import type { Package, PackageType } from "../layer/index.ts";
import { createOwnershipRelator } from "./ownership.ts";

function packageAt(type: PackageType, name: string, location: string): Package {
  return {
    type,
    name,
    version: "1",
    licenses: [],
    purl: `pkg:${type}/${name}@1`,
    location,
    layer: 0,
    cataloger: type,
    owned: [],
  };
}

it("language packages get the owner of their own record, with /usr merged or not", () => {
  const deb = packageAt("dpkg", "python3-idna", "var/lib/dpkg/status");
  const other = packageAt("dpkg", "other", "var/lib/dpkg/status");
  const packages = [
    deb,
    packageAt("python", "idna", "usr/lib/python3/idna.egg-info/PKG-INFO"),
    packageAt("npm", "shipped", "lib/node_modules/shipped/package.json"),
    packageAt("npm", "free", "srv/node_modules/free/package.json"),
    packageAt("python", "twice", "usr/lib/twice.egg-info"),
  ];
  const relator = createOwnershipRelator(packages);
  relator.see(deb, "lib/python3/idna.egg-info/PKG-INFO");
  relator.see(deb, "usr/lib/node_modules/shipped/package.json");
  relator.see(deb, "usr/lib/twice.egg-info");
  relator.see(other, "usr/lib/twice.egg-info");
  relator.see(deb, "usr/srv/node_modules/other/package.json");
  relator.see(deb, "var/lib/dpkg/status");
  expect(relator.result().map((one) => one.ownedBy)).toEqual([undefined, deb.purl, deb.purl, undefined, deb.purl]);
  expect(relator.result().map(({ ownedBy: _, ...rest }) => rest)).toEqual(packages);
});

it("only packages of the system own others", () => {
  const python = packageAt("python", "a", "usr/lib/a.dist-info/METADATA");
  const relator = createOwnershipRelator([python]);
  relator.see(python, "usr/lib/a.dist-info/METADATA");
  expect(relator.result()).toEqual([python]);
});

it("without anything seen nothing changes", () => {
  const one = packageAt("npm", "a", "x");
  expect(createOwnershipRelator([one]).result()).toEqual([one]);
});
