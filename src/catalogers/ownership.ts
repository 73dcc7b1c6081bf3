import type { Package, PackageType } from "../layer/index.ts";

const OPERATING_SYSTEM: ReadonlySet<PackageType> = new Set(["apk", "dpkg", "rpm"]);

/** Relates language packages to the packages of the operating system that installed them. */
interface OwnershipRelator {
  /** A path that `owner` owns, in any order; the first owner of a path counts. Owners that are no packages of the system are ignored. */
  see(owner: Package, path: string): void;
  /** All packages in the order given, language packages with `ownedBy` where their own record (`location`) was seen. */
  result(): Package[];
}

/**
 * A Python or npm package that a deb brings is in the image once and in two databases: it is related to its owner, not dropped and not repeated as
 * somebody else's. Paths are streamed past, none is kept.
 *
 * Package databases have paths as shipped, images as they lie: with `/usr` merged, `lib/x` is found at `usr/lib/x`, so both are compared.
 */
export function createOwnershipRelator(packages: readonly Package[]): OwnershipRelator {
  const byLocation = new Map<string, Package[]>();
  for (const one of packages) {
    if (OPERATING_SYSTEM.has(one.type)) continue;
    const withoutUsr = one.location.startsWith("usr/") ? one.location.slice("usr/".length) : one.location;
    for (const path of [withoutUsr, `usr/${withoutUsr}`]) {
      const there = byLocation.get(path);
      if (there === undefined) byLocation.set(path, [one]);
      else there.push(one);
    }
  }
  const owners = new Map<Package, string>();
  return {
    see(owner, path) {
      if (!OPERATING_SYSTEM.has(owner.type)) return;
      for (const one of byLocation.get(path) ?? []) if (!owners.has(one)) owners.set(one, owner.purl);
    },
    result() {
      return packages.map((one) => {
        const ownedBy = owners.get(one);
        return ownedBy === undefined ? one : { ...one, ownedBy };
      });
    },
  };
}
