/** The rules of `.dependency-cruiser.mjs`: each is broken on purpose in a small project made for it, and has to notice. */
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { drivers, rooms } from "./rooms.ts";

const root = join(import.meta.dirname, "..");

interface Cruise {
  readonly modules: readonly { readonly source: string }[];
  readonly summary: {
    readonly violations: readonly {
      readonly from: string;
      readonly to: string;
      readonly rule: { readonly name: string };
    }[];
  };
}

/** An import, and which rule has to report it; `undefined`: it is allowed. */
interface Plant {
  readonly file: string;
  readonly code: string;
  readonly rule: string | undefined;
}

const outsideRoom = "dgram";
const outsidePackage = "left-pad";
const denied = "not-in-allowed";

const plants: readonly Plant[] = [
  ...Object.entries(rooms).flatMap(([name, room]) => [
    ...Object.keys(rooms)
      .filter((other) => other !== name)
      .map((other) =>
        plant(name, `room-${other}`, `../${other}/index.ts`, room.rooms.includes(other) ? undefined : denied),
      ),
    ...room.rooms.map((other) => plant(name, `inside-${other}`, `../${other}/inner.ts`, denied)),
    ...room.node.map((module) => plant(name, `node-${module}`, `node:${module}`, undefined)),
    ...room.packages.map((module) => plant(name, `package-${module}`, module, undefined)),
    plant(name, "node", `node:${outsideRoom}`, denied),
    plant(name, "package", outsidePackage, denied),
    plant(name, "own", "./inner.ts", undefined),
    plant(name, "own-test", "./own.test.ts", "no-tests-in-the-product"),
    plant(name, "test", "../../test/support.ts", "no-tests-in-the-product"),
    plant(name, "missing", "./nowhere.ts", "resolvable"),
    ...(name === "app" ? [] : [plant(name, "driver", "../objects/drivers/db/index.ts", "only-app-knows-drivers")]),
  ]),
  ...Object.entries(drivers).flatMap(([name, driver]) => [
    ...driver.rooms.map((other) =>
      plant(`objects/drivers/${name}`, `room-${other}`, `../../../${other}/index.ts`, undefined),
    ),
    plant(`objects/drivers/${name}`, "contract", "../../driver.ts", undefined),
    plant(`objects/drivers/${name}`, "engine", "../../index.ts", "drivers-know-the-contract"),
    plant(`objects/drivers/${name}`, "sibling", "../other/index.ts", "no-driver-knows-another"),
    plant(`objects/drivers/${name}`, "upwards", "../../../images/index.ts", denied),
    plant(`objects/drivers/${name}`, "node", `node:${outsideRoom}`, denied),
    plant(`objects/drivers/${name}`, "package", outsidePackage, denied),
  ]),
  plant("app", "driver", "../objects/drivers/db/index.ts", undefined),
  plant("app", "inside-driver", "../objects/drivers/db/inner.ts", denied),
  plant("newcomer", "anything", "../errors/index.ts", denied),
  plant("newcomer", "node", "node:path", denied),
  plant("layer", "files", "node:fs", denied),
  { file: "src/layer/spill.ts", code: 'import "node:fs";', rule: undefined },
  plant("catalogers", "files", "node:fs", denied),
  { file: "src/layer/type-only.ts", code: 'import type { Pool } from "pg";', rule: denied },
  { file: "src/layer/dynamic.ts", code: 'export const load = () => import("node:fs");', rule: denied },
  { file: "src/layer/re-export.ts", code: 'export { inner } from "../db/index.ts";', rule: denied },
  {
    file: "src/layer/using.ts",
    code: 'export async function f(o: AsyncDisposable) { await using a = o; await using b = (await import("node:fs")).x(a); }',
    rule: denied,
  },
  {
    file: "src/layer/anything.test.ts",
    code: 'import "node:fs"; import "pg"; import "../db/inner.ts";',
    rule: undefined,
  },
];

function plant(room: string, name: string, imported: string, rule: string | undefined): Plant {
  return { file: `src/${room}/plant-${name.replaceAll("/", "-")}.ts`, code: `import "${imported}";`, rule };
}

describe("planted imports", () => {
  let project: string;
  let cruised: Cruise;

  beforeAll(async () => {
    project = mkdtempSync(join(tmpdir(), "stowage-rules-"));
    for (const folder of [...Object.keys(rooms), "objects/drivers/db", "objects/drivers/other"]) {
      write(`src/${folder}/index.ts`, "export const face = 1;");
      write(`src/${folder}/inner.ts`, "export const inner = 1;");
      write(`src/${folder}/own.test.ts`, "");
    }
    write("src/objects/driver.ts", "");
    write("test/support.ts", "");
    for (const name of [outsidePackage, ...Object.values(rooms).flatMap((room) => room.packages)]) {
      write(`node_modules/${name}/package.json`, JSON.stringify({ name, version: "1.0.0", main: "index.js" }));
      write(`node_modules/${name}/index.js`, "");
    }
    for (const { file, code } of plants) write(file, code);
    cruised = await cruise(project);
  });

  afterAll(() => rmSync(project, { recursive: true, force: true }));

  function write(path: string, text: string): void {
    mkdirSync(dirname(join(project, path)), { recursive: true });
    writeFileSync(join(project, path), text);
  }

  test.each(plants)("$file: $code → $rule", ({ file, rule }) => {
    const broken = cruised.summary.violations.filter((one) => one.from === file).map((one) => one.rule.name);
    if (rule === undefined) expect(broken).toEqual([]);
    else expect(broken).toContain(rule);
  });
});

test("every file of src/ is seen, and every room has its line", async () => {
  const cruised = await cruise(root);
  const files = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".ts"),
  );
  const seen = cruised.modules.map(({ source }) => source).filter((source) => source.startsWith("src/"));
  expect(files.length).toBeGreaterThan(0);
  expect(seen.toSorted()).toEqual(files.map((name) => `src/${name}`).toSorted());
  expect(Object.keys(rooms).toSorted()).toEqual(readdirSync(join(root, "src")).toSorted());
});

test("the table names no package that the project doesn't depend on", () => {
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    dependencies: Record<string, string>;
  };
  const named = new Set([...Object.values(rooms), ...Object.values(drivers)].flatMap((room) => room.packages));
  expect(Object.keys(manifest.dependencies)).toEqual(expect.arrayContaining([...named]));
});

/** Runs the command that `npm run check` runs, elsewhere. It exits with 1 when it finds something: then its output counts. */
function cruise(directory: string): Promise<Cruise> {
  const program = join(root, "node_modules/dependency-cruiser/bin/dependency-cruiser.mjs");
  const parameters = [program, "--config", join(root, ".dependency-cruiser.mjs"), "--output-type", "json", "src"];
  return new Promise((resolve, reject) => {
    execFile(process.execPath, parameters, { cwd: directory, maxBuffer: 64 * 2 ** 20 }, (error, stdout, stderr) => {
      try {
        resolve(JSON.parse(stdout) as Cruise);
      } catch {
        reject(new Error(`dependency-cruiser said: ${stderr}`, { cause: error }));
      }
    });
  });
}
