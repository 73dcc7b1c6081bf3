import { PackageURL } from "packageurl-js";
import type { Distribution } from "../layer/index.ts";

/** Parts of a package URL; qualifiers without a value are left out. */
export interface PurlParts {
  readonly type: string;
  readonly namespace?: string | undefined;
  readonly name: string;
  readonly version: string;
  readonly qualifiers?: Readonly<Record<string, string | undefined>>;
}

/**
 * A package URL in canonical form. packageurl-js 2 leaves `+` and its like unencoded in versions and lowers npm names, whose old ones differ by
 * case alone: both are put right here.
 *
 * @see https://github.com/package-url/purl-spec "Rules for each purl component"
 */
export function packageUrl(parts: PurlParts): string {
  const qualifiers: Record<string, string> = {};
  for (const [key, value] of Object.entries(parts.qualifiers ?? {})) {
    if (value !== undefined && value !== "") qualifiers[key] = value;
  }
  const url = new PackageURL(parts.type, parts.namespace, parts.name, parts.version, qualifiers, undefined);
  if (parts.type === "npm") url.name = parts.name;
  return url.toString().replace(/[!'()*+]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** Value of the `distro` qualifier: `ID-VERSION`, or `ID` where there is no version. */
export function distroQualifier(distribution: Distribution | undefined): string | undefined {
  if (distribution === undefined) return undefined;
  return distribution.version === "" ? distribution.id : `${distribution.id}-${distribution.version}`;
}
