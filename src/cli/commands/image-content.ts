import type { FileRecord, PackageRecord } from "../../app/index.ts";
import type { PackageType } from "../../layer/index.ts";
import type { Context } from "../context.ts";
import { formatBytes } from "../format.ts";
import { writeJson } from "../json.ts";
import { printable } from "../printable.ts";
import type { ContentType } from "../program.ts";
import { writeTable } from "../table.ts";

export async function imageContent(context: Context, name: string, type: ContentType): Promise<void> {
  if (type === "files") return await listFiles(context, name);
  await using application = await context.open();
  const types: readonly PackageType[] = type === "os" ? ["apk", "dpkg", "rpm"] : [type];
  const { digest, items } = await application.packagesOf(name, types, context.call);
  if (context.format === "json") {
    return await writeJson(context.output, { digest, type, packages: withoutReferences(items) });
  }
  await writeTable(
    context.output,
    [
      ...(type === "os" ? [{ title: "TYPE" }] : []),
      { title: "NAME" },
      { title: "VERSION" },
      { title: "ARCHITECTURE", sacrifice: 3 },
      { title: "SIZE", alignment: "right" },
      { title: "LICENSES", sacrifice: 1 },
      { title: "LOCATION", sacrifice: 2 },
    ],
    packageRows(items, type === "os"),
    context.colors.bold,
  );
}

async function listFiles(context: Context, name: string): Promise<void> {
  await using application = await context.open();
  const { digest, items } = await application.filesOf(name, context.call);
  if (context.format === "json") return await writeJson(context.output, { digest, files: items });
  const { output } = context;
  // A whole digest beside a path is wider than most terminals.
  const digestLength = output.columns === undefined || output.columns >= 150 ? 64 : 12;
  for await (const file of items) await output.write(fileLine(file, digestLength));
  await output.flush();
}

/** Where the lists of owned files lie is nobody else's business; the files themselves are there. */
async function* withoutReferences(packages: AsyncIterable<PackageRecord>): AsyncIterable<Omit<PackageRecord, "owned">> {
  for await (const { owned: _, ...rest } of packages) yield rest;
}

async function* packageRows(
  packages: AsyncIterable<PackageRecord>,
  isTypeShown: boolean,
): AsyncIterable<readonly string[]> {
  for await (const item of packages) {
    yield [
      ...(isTypeShown ? [item.type] : []),
      printable(item.name),
      printable(item.version),
      printable(item.architecture ?? "-"),
      item.sizeBytes === undefined ? "-" : formatBytes(item.sizeBytes),
      item.licenses.length === 0 ? "-" : printable(item.licenses.join(", ")),
      printable(item.location),
    ];
  }
}

const typeLetters = { file: "-", dir: "d", symlink: "l", char: "c", block: "b", fifo: "p" } as const;

/** One file as `ls -l` would show it: kind and permissions, owner, size or device, SHA-256, path, target. */
function fileLine(file: FileRecord, digestLength: number): string {
  const owner = `${file.uid}:${file.gid}`.padEnd(11);
  const size = (file.device ?? String(file.sizeBytes)).padStart(11);
  const digest = (file.sha256 ?? "-").slice(0, digestLength).padEnd(digestLength);
  const target = file.linkTarget === undefined ? "" : ` -> ${printable(file.linkTarget)}`;
  const link = file.hardlinkOf === undefined ? "" : ` link to ${printable(file.hardlinkOf)}`;
  return `${typeLetters[file.type]}${permissions(file.mode)} ${owner} ${size} ${digest} ${printable(file.path)}${target}${link}\n`;
}

/** `4755` as `rwsr-xr-x`. */
export function permissions(octal: string): string {
  const mode = Number.parseInt(octal, 8);
  return [0, 1, 2]
    .map((who) => {
      const bits = (mode >> (6 - 3 * who)) & 7;
      const isSpecial = ((mode >> (11 - who)) & 1) === 1;
      const letter = who === 2 ? "t" : "s";
      const execute = bits & 1 ? (isSpecial ? letter : "x") : isSpecial ? letter.toUpperCase() : "-";
      return `${bits & 4 ? "r" : "-"}${bits & 2 ? "w" : "-"}${execute}`;
    })
    .join("");
}
