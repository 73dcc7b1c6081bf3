/**
 * `npm run build`: the program as few files. Node takes longer to find and link a thousand small modules than to run most commands; what a command does
 * not need stays in files of its own, which are loaded late as in the sources. Licences of what is bundled stand beside it.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bundle } from "./bundle.ts";

const root = import.meta.dirname;
const out = join(root, "dist");

rmSync(out, { recursive: true, force: true });
const output = await bundle(
  {
    "cli/main": join(root, "src/cli/main.ts"),
    // Run by threads, which find it by its name.
    "analysis/layer-worker": join(root, "src/analysis/layer-worker.ts"),
  },
  out,
);

const packages = new Set(
  output.flatMap((file) =>
    file.type === "chunk"
      ? file.moduleIds.flatMap((id) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(id)?.[0] ?? [])
      : [],
  ),
);
const notices = [...packages].sort().map((directory) => {
  const { name, version, license } = JSON.parse(readFileSync(join(directory, "package.json"), "utf8"));
  const texts = readdirSync(directory).filter((file) => /^(licen[cs]e|notice|copying)/i.test(file));
  return [
    `${name} ${version}, ${license}`,
    ...texts.map((file) => readFileSync(join(directory, file), "utf8").trim()),
  ].join("\n\n");
});
writeFileSync(join(out, "THIRD-PARTY-LICENSES.txt"), `${notices.join(`\n\n${"-".repeat(80)}\n\n`)}\n`);
