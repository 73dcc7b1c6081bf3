/**
 * Catalogers: pure functions from the bytes of package files to findings, and from findings and the squashed view to the packages of an image. No
 * clock, network, file system or state; hostile input costs a finding of kind `problem`, never an exception, a hang or unbounded memory.
 */
import type { Cataloger } from "../layer/index.ts";
import { apkCataloger } from "./apk/apk-cataloger.ts";
import { distributionCataloger } from "./distribution/distribution-cataloger.ts";
import { dpkgCataloger } from "./dpkg/dpkg-cataloger.ts";
import { rpmCataloger } from "./rpm/rpm-cataloger.ts";

/** All catalogers in the order in which they reconcile: the distribution first, for the others' package URLs. */
export const catalogers: readonly Cataloger[] = [distributionCataloger, apkCataloger, dpkgCataloger, rpmCataloger];
