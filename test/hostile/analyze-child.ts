/**
 * Analyses one hostile layer in a process of its own, whose memory can so be measured, and prints what came of it as JSON.
 *
 * Usage: node analyze-child.ts SCENARIO
 */
import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { defaultLimits, type Limits } from "../../src/config/index.ts";
import {
  analyzeLayer,
  closeSpill,
  type ExpectedLayer,
  LayerReading,
  mergeLayers,
  NoteList,
  openSpill,
  pathText,
  readSpill,
} from "../../src/layer/index.ts";
import { type TarEntry, tarChunks } from "../images/builder.ts";

interface Scenario {
  readonly entries: () => Iterable<TarEntry>;
  readonly limits?: Partial<Limits>;
}

function* times(count: number, entry: (index: number) => TarEntry): Generator<TarEntry> {
  for (let index = 0; index < count; index++) yield entry(index);
}

const mebibyte = 1024 * 1024;

/** Files of a mebibyte, none like another. */
function* megabytes(count: number): Generator<TarEntry> {
  const content = Buffer.alloc(mebibyte, "content that hardly matters ");
  for (let index = 0; index < count; index++) {
    content.writeUInt32LE(index, 0);
    yield { path: `f${index}`, content };
  }
}

const scenarios: Readonly<Record<string, Scenario>> = {
  names: {
    entries: () => [
      { path: "../../../escaped", content: "1" },
      { path: "/absolute", content: "2" },
      { path: "a/../../../../b", content: "3" },
      { path: "line\nbreak", content: "4" },
      { path: "\u001b[31mred", content: "5" },
      { path: "out", type: "symlink", linkTarget: "../../../../outside" },
      { path: "out/file", content: "6" },
      { path: "conf", type: "symlink", linkTarget: "/etc" },
      { path: "conf/passwd", content: "7" },
      { path: "link", type: "hardlink", linkTarget: "../../../../../../../etc/passwd" },
      { path: "conf/.wh.shadow" },
      { path: "..", type: "dir" },
      { path: "../.wh..wh..opq" },
    ],
  },
  "a NUL in a name": { entries: () => [{ path: "n", pax: { path: "a\0/etc/passwd" } }] },
  "a name of a mebibyte": { entries: () => [{ path: "n", pax: { path: "n".repeat(mebibyte - 100) } }] },
  "a longer name": { entries: () => [{ path: "n", pax: { path: "n".repeat(2 * mebibyte) } }] },
  "symlink loops": {
    entries: () => [
      { path: "a", type: "symlink", linkTarget: "b" },
      { path: "b", type: "symlink", linkTarget: "a" },
      { path: "self", type: "symlink", linkTarget: "self" },
      ...times(1000, (index) => ({ path: `a/${index}`, content: "x" })),
      { path: "self/x", type: "hardlink", linkTarget: "self/y" },
    ],
  },
  "symlinks that grow": {
    entries: () => [
      ...times(60, (index) => ({
        path: `l${index}`,
        type: "symlink" as const,
        linkTarget: Array(500)
          .fill(`l${index + 1}`)
          .join("/"),
      })),
      ...times(1000, (index) => ({ path: `l0/${index}`, content: "x" })),
    ],
  },
  "exabytes of holes": {
    entries: () => [
      { path: "s", sparse: { form: "gnu", realSize: 2 ** 52, chunks: [{ offset: 2 ** 51, data: "x" }] } },
    ],
  },
  "a size of exabytes": { entries: () => [{ path: "n", content: "x", declaredSize: 2n ** 51n }] },
  "300,000 empty entries": { entries: () => times(300_000, (index) => ({ path: `d${index % 7}/${index}` })) },
  "more entries than the limit": {
    entries: () => times(100_000, (index) => ({ path: `${index}` })),
    limits: { layerEntriesMax: 50_000 },
  },
  "one name for ever": { entries: () => times(150_000, () => ({ path: "same" })) },
  "100,000 hard links": {
    entries: function* () {
      yield { path: "file", content: "x" };
      yield* times(99_000, (index) => ({ path: `l${index}`, type: "hardlink", linkTarget: "file" }));
    },
  },
  "a million hard links": {
    entries: () =>
      times(1_000_000, (index) => ({ path: `l${index}`, type: "hardlink", linkTarget: `t${index % 1000}` })),
  },
  "60 MB": { entries: () => megabytes(60) },
  "600 MB": { entries: () => megabytes(600) },
};

async function* blobOf({ entries }: Scenario): AsyncGenerator<Buffer> {
  let parts: Buffer[] = [];
  let length = 0;
  for (const chunk of tarChunks(entries())) {
    // Large pieces as they come off a disk: no piece stands for a whole file.
    for (let at = 0; at < chunk.length; at += 64 * 1024) {
      const part = chunk.subarray(at, at + 64 * 1024);
      parts.push(part);
      length += part.length;
      if (length < 64 * 1024) continue;
      yield Buffer.concat(parts);
      parts = [];
      length = 0;
    }
  }
  if (length > 0) yield Buffer.concat(parts);
}

async function run(scenario: Scenario): Promise<object> {
  const hash = createHash("sha256");
  let blobBytes = 0;
  for await (const chunk of blobOf(scenario)) {
    hash.update(chunk);
    blobBytes += chunk.length;
  }
  const digest = `sha256:${hash.digest("hex")}`;
  const expected = { blobDigest: digest, blobBytes, diffId: digest, compression: "none" } as ExpectedLayer;
  const limits = { ...defaultLimits, ...scenario.limits };
  const [scratch, output] = [openSpill(tmpdir()), openSpill(tmpdir())];
  try {
    const options = { catalogers: [], fingerprint: "test", limits, scratch, output };
    const { facts, documentBytes } = await analyzeLayer(async () => blobOf(scenario), expected, options);
    const document = { name: digest, open: async () => readSpill(output, documentBytes) };
    const reading = await LayerReading.open(document);
    const { notes } = await reading.summary(0);
    const paths: string[] = [];
    let files = 0;
    for await (const batch of mergeLayers([reading], new NoteList(limits))) {
      files += batch.length;
      for (const { key } of batch) if (paths.length < 100) paths.push(pathText(key));
    }
    return { files, paths, notes: [...new Set(notes.map(({ code }) => code))], tarEntries: facts.tarEntries };
  } catch (error) {
    const { code, details } = error as { code?: string; details?: { limit?: string } };
    return code === undefined ? { crash: String(error) } : { code, limit: details?.limit };
  } finally {
    closeSpill(scratch);
    closeSpill(output);
  }
}

const scenario = scenarios[process.argv[2] ?? ""];
if (scenario === undefined) throw new Error(`no such scenario: ${process.argv[2]}`);
const result = await run(scenario);
process.stdout.write(JSON.stringify({ ...result, peakMebibytes: Math.round(process.resourceUsage().maxRSS / 1024) }));
