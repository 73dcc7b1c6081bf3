import fc from "fast-check";
import { PackageURL } from "packageurl-js";
import { expect, it } from "vitest";
import { distroQualifier, packageUrl } from "./purl.ts";
import { nameText } from "./text.ts";

const purls: readonly (readonly [string, Parameters<typeof packageUrl>[0]])[] = [
  [
    "pkg:deb/debian/attr@1:2.4.47-2%2Bb1?arch=amd64",
    {
      type: "deb",
      namespace: "Debian",
      name: "attr",
      version: "1:2.4.47-2+b1",
      qualifiers: { arch: "amd64", distro: undefined },
    },
  ],
  [
    "pkg:rpm/fedora/centerim@4.22.10-1.el6?arch=i686&distro=fedora-25&epoch=1",
    {
      type: "rpm",
      namespace: "fedora",
      name: "centerim",
      version: "4.22.10-1.el6",
      qualifiers: { epoch: "1", arch: "i686", distro: "fedora-25" },
    },
  ],
  [
    "pkg:rpm/fedora/Case_is%2Bkept@1%5Egit~2",
    { type: "rpm", namespace: "fedora", name: "Case_is+kept", version: "1^git~2" },
  ],
  [
    "pkg:apk/alpine/curl@7.83.0-r0?arch=x86",
    { type: "apk", namespace: "alpine", name: "curl", version: "7.83.0-r0", qualifiers: { arch: "x86", upstream: "" } },
  ],
  ["pkg:npm/%40angular/animation@12.3.1", { type: "npm", namespace: "@angular", name: "animation", version: "12.3.1" }],
  ["pkg:npm/JSONStream@1.0.3%2Bbuild", { type: "npm", name: "JSONStream", version: "1.0.3+build" }],
  ["pkg:pypi/django-allauth@12.23", { type: "pypi", name: "Django_allauth", version: "12.23" }],
  ["pkg:pypi/a@1%210.5", { type: "pypi", name: "a", version: "1!0.5" }],
  [
    "pkg:deb/debian/bash@1?upstream=src%401%3A2%2Bb1",
    { type: "deb", namespace: "debian", name: "bash", version: "1", qualifiers: { upstream: "src@1:2+b1" } },
  ],
  ["pkg:deb/name@1", { type: "deb", namespace: undefined, name: "name", version: "1" }],
];

it.each(purls)("%s", (purl, parts) => {
  expect(packageUrl(parts)).toBe(purl);
  expect(PackageURL.fromString(purl)).toMatchObject({ type: parts.type, version: parts.version });
});

it("the distro qualifier leaves out a version that nobody knows", () => {
  expect(distroQualifier({ id: "debian", version: "12", like: [] })).toBe("debian-12");
  expect(distroQualifier({ id: "arch", version: "", like: [] })).toBe("arch");
  expect(distroQualifier(undefined)).toBeUndefined();
});

it("any name, version and distribution that a record can have makes one of printable ASCII, and never throws (property)", () => {
  const odd = fc.oneof(
    fc.string({ unit: "binary", minLength: 1, maxLength: 12 }),
    fc.stringMatching(/^[/.@%:?#&=+~_ -]{1,6}$/),
    fc.constantFrom("/", "//", ".", "..", "%", "%zz", "@", "a/../b", "constructor", "__proto__"),
  );
  const name = odd.map((text) => nameText(text)).filter((text) => text !== undefined);
  fc.assert(
    fc.property(
      fc.constantFrom("deb", "rpm", "apk", "npm", "pypi"),
      name,
      name,
      fc.option(name, { nil: undefined }),
      (type, name, version, extra) => {
        const purl = packageUrl({ type, namespace: extra, name, version, qualifiers: { arch: extra, distro: extra } });
        expect(purl).toMatch(/^pkg:[a-z]+\/[!-~]+$/);
      },
    ),
    { numRuns: 2000 },
  );
});
