/** The project's own Biome rules in `lint/rules`: each is broken on purpose, and has to notice, there and nowhere else. */
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "..");
const rules = readdirSync(join(import.meta.dirname, "rules")).map((file) => `./lint/rules/${file}`);

const exit = "Only cli may end the process";
const clock = "Only runtime reads the wall clock";
const environment = "Only config reads the environment";
const read = "Unbounded read";

/** Code in a file, and the start of the message that it has to cause; `undefined`: it is allowed there. */
const plants: readonly (readonly [file: string, code: string, message: string | undefined])[] = [
  ["src/db/a.ts", "export const f = () => process.exit(1);", exit],
  ["src/db/b.ts", "export const f = () => process.exit();", exit],
  ["src/db/c.ts", "export const f = () => process.abort();", exit],
  ["src/db/d.test.ts", "export const f = () => process.exit(1);", undefined],
  ["src/cli/a.ts", "export const f = () => process.exit(1);", undefined],
  ["demo/a.ts", "export const f = () => process.exit(1);", undefined],
  ["src/images/a.ts", "export const f = () => Date.now();", clock],
  ["src/images/b.ts", "export const f = () => new Date();", clock],
  ["src/images/c.ts", "export const f = (t: number) => new Date(t);", undefined],
  ["src/images/d.test.ts", "export const f = () => new Date();", undefined],
  ["src/runtime/a.ts", "export const f = () => new Date();", undefined],
  ["src/cli/b.ts", "export const f = process.env.HOME;", environment],
  ["src/cli/c.ts", 'export const f = process.env["HOME"];', environment],
  ["src/cli/d.ts", "export const f = (env = process.env) => env;", environment],
  ["src/config/a.ts", "export const f = process.env.HOME;", undefined],
  ["src/oci/a.ts", 'import { buffer } from "node:stream/consumers"; export const f = buffer;', read],
  ["src/oci/b.ts", 'import { json, text } from "node:stream/consumers"; export const f = [json, text];', read],
  ["src/oci/c.ts", "export const f = (r: any) => r.body.text();", read],
  ["src/oci/d.ts", "export const f = (r: any) => r.body.json();", read],
  [
    "src/oci/e.ts",
    'import { readFile } from "node:fs/promises"; export const f = (p: string) => readFile(p, "utf8");',
    read,
  ],
  ["src/oci/f.ts", 'import { readFileSync } from "node:fs"; export const f = (p: string) => readFileSync(p);', read],
  [
    "src/db/e.ts",
    'import { readFile } from "node:fs/promises"; export const f = (p: string) => readFile(p, "utf8");',
    undefined,
  ],
  ["src/oci/g.test.ts", 'import { buffer } from "node:stream/consumers"; export const f = buffer;', undefined],
];

interface Report {
  readonly diagnostics: readonly {
    readonly category: string;
    readonly message: string;
    readonly location: { readonly path: string };
  }[];
}

describe("planted faults", () => {
  let project: string;
  let report: Report;

  beforeAll(async () => {
    project = mkdtempSync(join(tmpdir(), "stowage-lint-"));
    const configuration = { root: true, plugins: rules.map((rule) => join(root, rule)) };
    writeFileSync(join(project, "biome.json"), JSON.stringify(configuration));
    for (const [file, code] of plants) {
      mkdirSync(dirname(join(project, file)), { recursive: true });
      writeFileSync(join(project, file), `${code}\n`);
    }
    report = await lint(project);
  });

  afterAll(() => rmSync(project, { recursive: true, force: true }));

  test.each(plants)("%s: %s → %s", (file, _code, message) => {
    const told = report.diagnostics
      .filter(({ category, location }) => category === "plugin" && location.path === file)
      .map((one) => one.message);
    expect(told).toEqual(message === undefined ? [] : [expect.stringContaining(message)]);
  });
});

test("npm run check applies every rule there is", () => {
  const { plugins } = JSON.parse(readFileSync(join(root, "biome.json"), "utf8")) as { plugins: string[] };
  expect(plugins.toSorted()).toEqual(rules.toSorted());
});

function lint(directory: string): Promise<Report> {
  const parameters = ["lint", "--reporter=json", "--max-diagnostics=none", "."];
  return new Promise((resolve, reject) => {
    execFile(join(root, "node_modules/.bin/biome"), parameters, { cwd: directory }, (error, stdout, stderr) => {
      try {
        resolve(JSON.parse(stdout) as Report);
      } catch {
        reject(new Error(`Biome said: ${stderr}`, { cause: error }));
      }
    });
  });
}
