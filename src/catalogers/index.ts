/**
 * Catalogers: pure functions from the bytes of package files to findings, and from findings and the squashed view to the packages of an image. No
 * clock, network, file system or state; hostile input costs a finding of kind `problem`, never an exception, a hang or unbounded memory.
 */
import type { Cataloger } from "../layer/index.ts";
import { apkCataloger } from "./apk/apk-cataloger.ts";
import { distributionCataloger } from "./distribution/distribution-cataloger.ts";
import { dpkgCataloger } from "./dpkg/dpkg-cataloger.ts";
import { npmCataloger } from "./npm/npm-cataloger.ts";
import { pythonCataloger } from "./python/python-cataloger.ts";
import { rpmCataloger } from "./rpm/rpm-cataloger.ts";
import { usersCataloger } from "./users/users-cataloger.ts";

export { createOwnershipRelator } from "./ownership.ts";

/** All catalogers in the order in which they reconcile: the distribution first, for the others' package URLs. */
export const catalogers: readonly Cataloger[] = [
  distributionCataloger,
  usersCataloger,
  apkCataloger,
  dpkgCataloger,
  rpmCataloger,
  npmCataloger,
  pythonCataloger,
];
