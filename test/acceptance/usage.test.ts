import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { documentOf, ended, root, startStowage, stowage } from "./command.ts";

const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };

const commands = [
  "",
  "analyze",
  "image",
  "image list",
  "image get",
  "image content",
  "image delete",
  "config",
  "config validate",
  "config show",
  "objectstorage",
  "objectstorage list-drivers",
  "objectstorage check",
  "objectstorage usage",
  "objectstorage gc",
  "objectstorage scrub",
  "objectstorage claim",
  "objectstorage migrate",
  "objectstorage list-migrations",
  "objectstorage migration",
  "objectstorage migration show",
  "objectstorage migration resume",
  "objectstorage migration cancel",
  "cache",
  "cache stats",
  "cache list",
  "cache trim",
  "cache verify",
  "cache clear",
];

describe("help", () => {
  it.each(commands)("stowage %s --help explains, with examples", async (line) => {
    const { code, stdout, stderr } = await stowage([...line.split(" ").filter(Boolean), "--help"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain(`Usage: stowage${line && ` ${line}`} `);
    expect(stdout).toMatch(/\nExamples:\n {2}stowage /);
    expect(stdout).toContain("--data-dir");
    expect(stdout).not.toContain("\u001b");
    // The reference is made of these very texts.
    expect(readFileSync(join(root, "docs/reference/cli.md"), "utf8")).toContain(`## stowage${line && ` ${line}`}\n`);
  });

  it("names every command that there is", async () => {
    // Every word of a list of commands is asked for its own list, until none has one.
    const below = async (line: readonly string[]): Promise<string[]> => {
      const { stdout } = await stowage([...line, "--help"]);
      const [, list = ""] = /\nCommands:\n((?: {2}.*\n)+)/.exec(stdout) ?? [];
      const names = [...list.matchAll(/^ {2}([\w-]+)/gm)]
        .map(([, name = ""]) => name)
        .filter((name) => name !== "help");
      const lists = await Promise.all(names.map((name) => below([...line, name])));
      return [line.join(" "), ...lists.flat()];
    };
    expect((await below([])).sort()).toEqual([...commands].sort());
  });

  it("is shown on standard error, with exit code 2, where a command is missing", async () => {
    for (const line of [[], ["image"], ["config"], ["objectstorage"], ["objectstorage", "migration"]]) {
      const { code, stdout, stderr } = await stowage(line);
      expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
      expect(stderr).toMatch(/^Usage: stowage/);
    }
  });
});

describe("--version", () => {
  it.each(["--version", "-V"])("%s prints the version of the package", async (flag) => {
    expect(await stowage([flag])).toEqual({ code: 0, signal: null, stdout: `${version}\n`, stderr: "" });
  });

  it("loads almost nothing", async () => {
    const hooks = `import { registerHooks } from "node:module";
      registerHooks({ load(url, context, next) { process.stderr.write(url + "\\n"); return next(url, context); } });`;
    const loaded = (
      await ended(
        startStowage(["--version"], {
          program: ["--import", `data:text/javascript,${encodeURIComponent(hooks)}`, join(root, "src/cli/main.ts")],
        }),
      )
    ).stderr;
    const packages = [...loaded.matchAll(/node_modules\/((?:@[^/]+\/)?[^/]+)/g)].map(([, name]) => name);
    // Below the checkout, which may itself lie in some `src`.
    const rooms = [...loaded.replaceAll(pathToFileURL(root).href, "").matchAll(/^\/src\/([a-z]+)\//gm)].map(
      ([, name]) => name,
    );
    expect([...new Set(packages)].sort()).toEqual(["commander", "picocolors"]);
    expect([...new Set(rooms)].sort()).toEqual(["cli", "config", "errors"]);
  });
});

describe("bad usage ends with 2, says why and what to do, and prints nothing else", () => {
  it.each([
    ["imagee list", "unknown command 'imagee'", "did you mean image?"],
    ["image lst", "unknown command 'lst'", "did you mean list?"],
    ["analyze x --platfrom y", "unknown option '--platfrom'", "did you mean --platform?"],
    ["analyze", "missing required argument", "add --help"],
    ["image get a b", "too many arguments", "add --help"],
    ["image content x wheels", "Allowed choices are os, apk, dpkg, rpm, npm, python, files", "add --help"],
    ["-o yaml image list", "Allowed choices are table, json", "add --help"],
    ["image list --limit nothing=1", "no such limit", "limits are: manifestBytesMax"],
    ["image list --log-level loud", "Allowed choices are trace", "add --help"],
    ["image list --data-dir x --db-connect y", "cannot be used with", "add --help"],
  ])("stowage %s", async (line, reason, hint) => {
    const { code, stdout, stderr } = await stowage(line.split(" "));
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/^error: .*\n {2}hint: .*\n {2}code: (INPUT|CONFIG)_INVALID\n$/);
    expect(stderr).toContain(reason);
    expect(stderr).toContain(`  hint: ${hint}`);
  });

  it("as JSON under -o json", async () => {
    const { code, stdout, stderr } = await stowage(["image", "lst", "-o", "json"]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(documentOf("error", stderr).error).toMatchObject({ code: "INPUT_INVALID", hint: "did you mean list?" });
  });

  it("escaped, when what was typed is no text for a terminal", async () => {
    const { code, stderr } = await stowage(["image", "li\u001b[31mst"]);
    expect(code).toBe(2);
    expect(stderr).toContain("li\\x1b[31mst");
  });
});

describe("an old Node", () => {
  it.each(["12.22.12", "20.19.0", "23.11.1"])("%s is told so before anything else", async (old) => {
    // The real check reads the same property; nothing but the launcher can have been loaded, since there is no build here.
    const pretend = `Object.defineProperty(process.versions, "node", { value: "${old}" });`;
    const { code, stdout, stderr } = await stowage(["--version"], {
      program: ["--import", `data:text/javascript,${encodeURIComponent(pretend)}`, join(root, "bin/stowage.js")],
    });
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(
      new RegExp(
        `^error: stowage needs Node.js 24 or newer; this is ${old} .*\\n {2}hint: .*\\n {2}code: CONFIG_NODE_TOO_OLD\\n$`,
      ),
    );
  });

  it("can read the launcher", () => {
    // What is older than ES2020's dynamic import can't run modules at all; nothing newer than that may be used.
    const source = readFileSync(join(root, "bin/stowage.js"), "utf8").replace(/^#!.*|\/\/.*$/gm, "");
    expect(source).not.toMatch(
      /\b(const|let|class|await|async|static)\b|=>|`|\?\.|\?\?|import\s|import[.]meta|export\s/,
    );
    expect(source).toMatch(/import\("\.\.\/dist\/cli\/main\.js"\)/);
  });
});

it("the reference is what the definitions say", async () => {
  expect(await stowage(["--check"], { program: [join(root, "docs/generate.ts")] })).toEqual({
    code: 0,
    signal: null,
    stdout: "",
    stderr: "",
  });
});
