import { describe, expect, it } from "vitest";
import { type LayerFiles, runCataloger } from "../../../test/catalogers/run-cataloger.ts";
import { npmCataloger } from "./npm-cataloger.ts";

const json = (fields: object) => JSON.stringify(fields);
const run = (...layers: LayerFiles[]) => runCataloger(npmCataloger, layers);
const one = (fields: object) =>
  run({ "app/node_modules/x/package.json": json({ name: "x", version: "1.0.0", ...fields }) }).packages[0];

describe("npm", () => {
  it("only what lies right below node_modules is installed", () => {
    const installed = [
      "node_modules/root/package.json",
      "srv/app/node_modules/@scope/name/package.json",
      "srv/app/node_modules/a/node_modules/b/package.json",
      "srv/app/node_modules/.pnpm/c@1.0.0/node_modules/c/package.json",
      "srv/app/node_modules/.pnpm/@s+d@1.0.0/node_modules/@s/d/package.json",
    ];
    const asked = ["srv/app/node_modules/.moved-aside/package.json", "srv/app/node_modules/@scope/package.json"];
    const others = [
      "srv/app/package.json",
      "srv/app/node_modules/a/test/fixtures/package.json",
      "srv/app/node_modules/a/dist/esm/package.json",
      "srv/app/node_modules/a/package-lock.json",
      "srv/node_modules.old/a/package.json",
    ];
    const files = Object.fromEntries(
      [...installed, ...asked, ...others].map((path) => [path, json({ name: "n", version: "1.0.0" })]),
    );
    const result = run(files);
    expect(result.asked).toEqual([[...installed, ...asked].sort()]);
    expect(result.packages.map((found) => found.location).sort()).toEqual([...installed].sort());
  });

  it("a package with all of its fields", () => {
    expect(
      run(
        {},
        {
          "app/node_modules/@a/b/package.json": json({
            name: "@a/b",
            version: "1.2.3-rc.1+build",
            license: "MIT",
            author: { name: "A", email: "a@example.org" },
            description: "d",
            homepage: "https://example.org",
          }),
        },
      ).packages,
    ).toEqual([
      {
        type: "npm",
        name: "@a/b",
        version: "1.2.3-rc.1+build",
        licenses: ["MIT"],
        origin: "A <a@example.org>",
        description: "d",
        homepage: "https://example.org",
        purl: "pkg:npm/%40a/b@1.2.3-rc.1%2Bbuild",
        location: "app/node_modules/@a/b/package.json",
        layer: 1,
        cataloger: "npm",
        owned: [],
      },
    ]);
  });

  it.each([
    [{ license: { type: "ISC" } }, ["ISC"]],
    [{ licenses: [{ type: "MIT", url: "u" }, "BSD", 7, null] }, ["MIT", "BSD"]],
    [{ license: ["MIT", "MIT"] }, ["MIT"]],
    [{ license: 7, licenses: { type: ["x"] } }, []],
    [{ licenses: "Unlicense" }, ["Unlicense"]],
  ])("licences of %j", (fields, licenses) => {
    expect(one(fields)?.licenses).toEqual(licenses);
  });

  it("a field of a wrong type costs the field", () => {
    expect(one({ author: ["x"], description: 7, homepage: { url: "u" }, license: null })).toEqual({
      type: "npm",
      name: "x",
      version: "1.0.0",
      licenses: [],
      purl: "pkg:npm/x@1.0.0",
      location: "app/node_modules/x/package.json",
      layer: 0,
      cataloger: "npm",
      owned: [],
    });
    expect(one({ author: "A <a@b>" })?.origin).toBe("A <a@b>");
  });

  it("an alias is what its package.json says; the last of equal keys counts; __proto__ is a key like others", () => {
    const text = '\ufeff{"name":"first","__proto__":{"version":"9"},"name":"string-width","version":"4.2.3"}';
    const [found] = run({ "node_modules/string-width-cjs/package.json": text }).packages;
    expect(found).toMatchObject({ name: "string-width", version: "4.2.3" });
    expect(run({ "node_modules/a/package.json": '{"name":"a","__proto__":{"version":"9"}}' }).packages).toEqual([]);
  });

  it.each([
    ["{", "not JSON"],
    ["[]", "not a JSON object"],
    ["null", "not a JSON object"],
    [json({ name: "../../x", version: "1" }), "the name is none that a package can have"],
    [json({ name: "a/b", version: "1" }), "the name is none that a package can have"],
    ["[".repeat(100_000), "not JSON"],
    [json({ name: "x\u001b[31m", version: "1" }), "no usable name or version"],
    [json({ name: "x", version: "1\n2" }), "no usable name or version"],
    [json({ name: "x".repeat(600), version: "1" }), "no usable name or version"],
  ])("problem: %.40s", (text, message) => {
    const result = run({ "node_modules/a/package.json": text });
    expect(result.findings).toEqual([
      [{ kind: "problem", path: "node_modules/a/package.json", value: { text: message } }],
    ]);
    expect(result.packages).toEqual([]);
  });

  it.each([{ type: "module" }, { name: "x" }, { name: 7, version: "1" }, { name: " ", version: "1" }])(
    "%j names no package",
    (fields) => {
      expect(run({ "node_modules/a/package.json": json(fields) }).findings).toEqual([[]]);
    },
  );

  it("the squashed view decides", () => {
    const at = (version: string) => ({ "node_modules/x/package.json": json({ name: "x", version }) });
    expect(run(at("1.0.0"), at("2.0.0")).packages.map((found) => `${found.version} ${found.layer}`)).toEqual([
      "2.0.0 1",
    ]);
    expect(run(at("1.0.0"), { "node_modules/x": null }).packages).toEqual([]);
  });
});
