import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { failureOf } from "../../test/conformance/failure.ts";
import {
  archiveOf,
  type BuiltImage,
  buildAttestation,
  buildImage,
  buildIndex,
  dockerArchive,
  gnuLongHeader,
  layoutFiles,
  mediaTypes,
  ociArchive,
  paxHeader,
  sha256,
  type TarEntry,
  tarStream,
  writeFiles,
  writeLayout,
} from "../../test/images/builder.ts";
import { testSourceOptions } from "../../test/registry/source-options.ts";
import { StowageError } from "../errors/index.ts";
import { createCall } from "../runtime/index.ts";
import { type ImageSource, openSource, parsePlatform, type ResolvedImage } from "./index.ts";

const call = createCall();
const scratch = mkdtempSync(join(tmpdir(), "stowage-test-"));
afterAll(() => rmSync(scratch, { recursive: true }));
let count = 0;
const place = (name = "image") => join(scratch, `${++count}-${name}`);

const layer = (text: string) => [{ path: "f", content: text }];
const image = buildImage({ layers: [layer("a"), layer("b")] });
const other = buildImage({ layers: [layer("c")] });
const arm = buildImage({ layers: [layer("arm")], architecture: "arm64", variant: "v8" });

type Files = Map<string, Buffer>;
const layoutOf = (files: Files): string => {
  const directory = place();
  writeFiles(directory, files);
  return `oci:${directory}`;
};
const fileOf = (scheme: string, bytes: Buffer): string => {
  const file = place();
  writeFileSync(file, bytes);
  return `${scheme}:${file}`;
};

async function resolve(text: string, platform?: string, options = testSourceOptions()): Promise<ResolvedImage> {
  await using source = await openSource(text, options, call);
  return await source.resolve(platform === undefined ? undefined : parsePlatform(platform), call);
}

async function readLayers(source: ImageSource, resolved: ResolvedImage): Promise<string[]> {
  const digests: string[] = [];
  for (const { descriptor } of resolved.layers) {
    const chunks = (await (await source.layers.open(descriptor, call)).toArray()) as Buffer[];
    digests.push(sha256(Buffer.concat(chunks)));
  }
  return digests;
}

describe("what a source may look like", () => {
  it.each([
    ["", /empty/],
    ["oci:", /no path/],
    ["oci::tag", /no path/],
    ["oci-archive:", /no path/],
    ["docker://alpine:3.20", /write the reference alone: alpine:3.20/],
    ["https://ghcr.io/a/b", /write the reference alone: ghcr.io\/a\/b/],
    ["s3://bucket/x", /a source is/],
    ["oci-arcive:image.tar", /did you mean oci-archive:/],
    ["docker-archve:image.tar", /did you mean docker-archive:/],
    ["OCI:dir", /did you mean oci:/],
    ["docker-daemon:alpine:3", /a source is/],
    ["containers-storage:x", /a source is/],
    ["./image.tar", /oci-archive:.\/image.tar/],
    ["/tmp", /write oci:\/tmp/],
    ["not a reference", /examples/],
    ["Alpine", /examples/],
  ])("refuses %j and says what to do", async (text, hint) => {
    const error = await failureOf(openSource(text, testSourceOptions(), call));
    expect(error.code).toBe("INPUT_INVALID");
    expect(error.entry.exitCode).toBe(2);
    expect(`${error.message} ${error.hint}`).toMatch(hint);
  });

  it("takes image names that look a little like schemes for names", async () => {
    for (const text of ["docker:dind", "registry:2", "localhost:5000/x:1", "oc:1"]) {
      await using source = await openSource(text, testSourceOptions(), call);
      expect(source.description).toContain(text);
    }
  });

  it("splits at the colon after the longest path that exists", async () => {
    const parent = place("colons");
    mkdirSync(parent);
    writeLayout(join(parent, "a:b"), [
      { image, ref: "1" },
      { image: other, ref: "host:5000/x/y:2" },
    ]);
    expect((await resolve(`oci:${parent}/a:b:1`)).digest).toBe(image.descriptor.digest);
    expect((await resolve(`oci:${parent}/a:b:host:5000/x/y:2`)).digest).toBe(other.descriptor.digest);
    expect((await failureOf(resolve(`oci:${parent}/a:b`))).code).toBe("IMAGE_AMBIGUOUS");
    expect((await failureOf(resolve(`oci:${parent}/a:b:`))).code).toBe("INPUT_INVALID");
    expect((await failureOf(resolve(`oci:${parent}/none:1`))).details.reason).toBe("there is no such directory");
  });
});

describe("which image of a layout", () => {
  it("finds by tag, by full name in each spelling, and by digest", async () => {
    const text = layoutOf(
      layoutFiles([
        { image, ref: "3.20", name: "docker.io/library/alpine:3.20" },
        { image: other, ref: "edge", name: "ghcr.io/a/b:edge" },
      ]),
    );
    for (const ref of ["3.20", "docker.io/library/alpine:3.20", "alpine:3.20", `@${image.descriptor.digest}`]) {
      const found = await resolve(`${text}:${ref}`);
      expect(found.digest).toBe(image.descriptor.digest);
      expect(found.suggestedName).toBe("docker.io/alpine:3.20");
    }
    expect((await resolve(`${text}:edge`)).suggestedName).toBe("ghcr.io/a/b:edge");
    const missing = await failureOf(resolve(`${text}:3.21`));
    expect(missing.code).toBe("IMAGE_NOT_FOUND");
    expect(missing.hint).toContain("3.20");
    const ambiguous = await failureOf(resolve(text));
    expect(ambiguous.code).toBe("IMAGE_AMBIGUOUS");
    expect(ambiguous.details.candidates).toEqual(["3.20", "edge"]);
  });

  it("takes a mere tag for no name", async () => {
    expect((await resolve(layoutOf(layoutFiles([{ image, ref: "3.20" }])))).suggestedName).toBeUndefined();
  });

  it("takes one tag on several entries for platforms, if they are, and else for ambiguous", async () => {
    const platforms = layoutOf(
      layoutFiles([
        { image, ref: "1" },
        { image: arm, ref: "1" },
      ]),
    );
    expect((await resolve(`${platforms}:1`, "linux/arm64")).digest).toBe(arm.descriptor.digest);
    expect((await resolve(`${platforms}:1`, "linux/amd64")).index).toBeUndefined();
    const same = layoutOf(
      layoutFiles([
        { image, ref: "1" },
        { image: other, ref: "1" },
      ]),
    );
    expect((await failureOf(resolve(`${same}:1`))).code).toBe("IMAGE_AMBIGUOUS");
  });

  it("takes several tags on one image for one image", async () => {
    const text = layoutOf(
      layoutFiles([
        { image, ref: "1" },
        { image, ref: "latest" },
      ]),
    );
    expect((await resolve(text)).digest).toBe(image.descriptor.digest);
  });

  it("knows schema 1 for what it is, and prefers others to it", async () => {
    const body = Buffer.from('{"schemaVersion":1,"name":"x","tag":"y","fsLayers":[],"history":[],"signatures":[]}');
    for (const form of ["json", "prettyjws"]) {
      const mediaType = `application/vnd.docker.distribution.manifest.v1+${form}`;
      const descriptor = { mediaType, digest: sha256(body), size: body.length };
      const old = { descriptor, bytes: body, blobs: new Map([[descriptor.digest, body]]) };
      const alone = layoutOf(layoutFiles([{ image: old, ref: "old" }]));
      const mixed = layoutOf(
        layoutFiles([
          { image: old, ref: "old" },
          { image, ref: "new" },
        ]),
      );
      for (const source of [alone, `${alone}:old`, `${mixed}:old`, `${mixed}:${descriptor.digest}`]) {
        expect((await failureOf(resolve(source))).code).toBe("IMAGE_SCHEMA1_UNSUPPORTED");
      }
      expect((await resolve(mixed)).digest).toBe(image.descriptor.digest);
      expect((await resolve(`${mixed}:new`)).digest).toBe(image.descriptor.digest);
    }
  });

  it("finds nothing in an empty layout", async () => {
    expect((await failureOf(resolve(layoutOf(layoutFiles([]))))).code).toBe("IMAGE_NOT_FOUND");
  });
});

describe("which platform of an index", () => {
  const v3 = buildImage({ layers: [layer("v3")], variant: "v3" });
  const index = buildIndex([arm, v3, image], { attestations: true });
  const text = layoutOf(layoutFiles([{ image: index, ref: "1" }]));

  it("chooses by preference, not by order", async () => {
    const found = await resolve(text, "linux/amd64");
    expect(found.digest).toBe(image.descriptor.digest);
    expect(found.index?.digest).toBe(index.descriptor.digest);
    expect(found.index?.bytes.equals(index.bytes)).toBe(true);
    expect((await resolve(text, "linux/amd64/v4")).digest).toBe(v3.descriptor.digest);
    expect((await resolve(text, "linux/aarch64")).digest).toBe(arm.descriptor.digest);
  });

  it("lists what there is, without attestations", async () => {
    const error = await failureOf(resolve(text, "linux/s390x"));
    expect(error.code).toBe("IMAGE_PLATFORM_MISSING");
    expect(error.details.available).toEqual(["linux/arm64", "linux/amd64/v3", "linux/amd64"]);
  });

  it("says so of an index without images", async () => {
    const { descriptor } = buildAttestation(image);
    for (const empty of [buildIndex([]), buildIndex([], { descriptors: [descriptor] })]) {
      const source = layoutOf(layoutFiles([{ image: empty, ref: "1" }]));
      for (const wish of [undefined, "linux/amd64"]) {
        const error = await failureOf(resolve(source, wish));
        expect(error.code).toBe("IMAGE_PLATFORM_MISSING");
        expect(error.details.available).toEqual([]);
        expect(error.message).toMatch(/\(platform: linux\/\w+; reason: its index has no images\)$/);
      }
    }
  });

  it("never answers with an attestation, not even to a wish for its platform", async () => {
    expect((await failureOf(resolve(text, "unknown/unknown"))).code).toBe("IMAGE_PLATFORM_MISSING");
    const { platform: _, ...disguised } = buildAttestation(image).descriptor;
    const hidden = buildIndex([image], {
      descriptors: [{ ...disguised, platform: { os: "linux", architecture: "s390x" } }],
    });
    const source = layoutOf(layoutFiles([{ image: hidden }]));
    expect((await failureOf(resolve(source, "linux/s390x"))).code).toBe("IMAGE_PLATFORM_MISSING");
  });

  it("without a wish takes the only platform there is, whatever the machine", async () => {
    const odd = buildImage({ layers: [layer("z")], architecture: "s390x" });
    expect((await resolve(layoutOf(layoutFiles([{ image: buildIndex([odd], { attestations: true }) }])))).digest).toBe(
      odd.descriptor.digest,
    );
    expect((await resolve(layoutOf(layoutFiles([{ image: odd }])))).digest).toBe(odd.descriptor.digest);
  });

  it("without a wish takes the only image whose blobs are there", async () => {
    const files = layoutFiles([{ image: buildIndex([arm, image]) }]);
    files.delete(`blobs/${image.descriptor.digest.replace(":", "/")}`);
    const partial = layoutOf(files);
    expect((await resolve(partial)).digest).toBe(arm.descriptor.digest);
    expect((await failureOf(resolve(partial, "linux/amd64"))).code).toBe("IMAGE_BLOB_MISSING");
  });

  it("refuses a wish that a single image does not meet", async () => {
    const error = await failureOf(resolve(layoutOf(layoutFiles([{ image }])), "linux/arm64"));
    expect(error.code).toBe("IMAGE_PLATFORM_MISSING");
    expect(error.details.available).toEqual(["linux/amd64"]);
  });

  it("descends into nested indexes, to a bounded depth", async () => {
    let nested = buildIndex([arm]);
    const deep = buildIndex([buildIndex([nested]), image]);
    const found = await resolve(layoutOf(layoutFiles([{ image: deep }])), "linux/arm64");
    expect(found.digest).toBe(arm.descriptor.digest);
    expect(found.index?.digest).toBe(deep.descriptor.digest);
    for (let depth = 0; depth < 10; depth++) nested = buildIndex([nested]);
    expect((await failureOf(resolve(layoutOf(layoutFiles([{ image: nested }]))))).code).toBe("LIMIT_EXCEEDED");
  });

  it("learns the platform of an entry that names none from its configuration, and skips what is no image", async () => {
    const { platform: _, ...unnamed } = arm.descriptor;
    const artifact = buildImage({
      layers: [],
      manifest: { config: { mediaType: "application/vnd.oci.empty.v1+json", digest: sha256("{}"), size: 2 } },
    });
    const { platform: __, ...artifactDescriptor } = artifact.descriptor;
    const mixed = buildIndex([], {
      descriptors: [artifactDescriptor, { ...artifactDescriptor, mediaType: "application/x" }, unnamed],
    });
    const blobs = new Map([...mixed.blobs, ...arm.blobs, ...artifact.blobs]);
    const found = await resolve(layoutOf(layoutFiles([{ image: { ...mixed, blobs } }])), "linux/arm64");
    expect(found.digest).toBe(arm.descriptor.digest);
  });
});

describe("what a layout gives", () => {
  it("is verified and paired", async () => {
    const spec = {
      layers: [
        { content: layer("1"), compression: "none" },
        { content: layer("2"), compression: "zstd" },
        {
          content: layer("3"),
          mediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
          urls: ["http://127.0.0.1:1/"],
        },
      ],
    } as const;
    const built = buildImage(spec);
    await using source = await openSource(layoutOf(layoutFiles([{ image: built }])), testSourceOptions(), call);
    const found = await source.resolve(undefined, call);
    expect(found.imageId).toBe(built.configDigest);
    expect(found.manifest.equals(built.bytes)).toBe(true);
    expect(found.config.raw.equals(built.config)).toBe(true);
    expect(found.layers.map((entry) => [entry.compression, entry.isForeign])).toEqual([
      ["none", false],
      ["zstd", false],
      ["gzip", true],
    ]);
    expect(found.layers.map((entry) => entry.diffId)).toEqual(built.layers.map((entry) => entry.diffId));
    expect(await readLayers(source, found)).toEqual(built.layers.map((entry) => entry.descriptor.digest));
  });

  const blobOf = (digest: string) => `blobs/${digest.replace(":", "/")}`;
  const damaged: [string, (files: Files) => void, string][] = [
    ["no oci-layout file", (files) => files.delete("oci-layout"), "IMAGE_SOURCE_UNREADABLE"],
    ["no index.json", (files) => files.delete("index.json"), "IMAGE_SOURCE_UNREADABLE"],
    [
      "another layout version",
      (files) => files.set("oci-layout", Buffer.from('{"imageLayoutVersion":"2.0.0"}')),
      "IMAGE_SOURCE_UNREADABLE",
    ],
    ["an index.json that is no JSON", (files) => files.set("index.json", Buffer.from("{")), "IMAGE_MANIFEST_INVALID"],
    [
      "a manifest with another byte",
      (files) => files.set(blobOf(image.descriptor.digest), Buffer.from(image.bytes.toString().replace("v1", "v2"))),
      "IMAGE_DIGEST_MISMATCH",
    ],
    [
      "a manifest that is longer",
      (files) => files.set(blobOf(image.descriptor.digest), Buffer.concat([image.bytes, Buffer.from(" ")])),
      "IMAGE_SIZE_MISMATCH",
    ],
    ["no manifest", (files) => files.delete(blobOf(image.descriptor.digest)), "IMAGE_BLOB_MISSING"],
    ["no configuration", (files) => files.delete(blobOf(image.configDigest)), "IMAGE_BLOB_MISSING"],
    [
      "another configuration",
      (files) => files.set(blobOf(image.configDigest), Buffer.from(image.config.toString().replace("amd64", "arm64"))),
      "IMAGE_DIGEST_MISMATCH",
    ],
  ];

  it.each(damaged)("refuses a layout with %s", async (_, damage, code) => {
    const files = layoutFiles([{ image }]);
    damage(files);
    expect((await failureOf(resolve(layoutOf(files)))).code).toBe(code);
    expect((await failureOf(resolve(fileOf("oci-archive", archiveOf(files))))).code).toBe(code);
  });

  it("refuses lists of different length, and more than the limits allow", async () => {
    const uneven = buildImage({ layers: [layer("a")], config: { rootfs: { type: "layers", diff_ids: [] } } });
    expect((await failureOf(resolve(layoutOf(layoutFiles([{ image: uneven }]))))).code).toBe("IMAGE_MANIFEST_INVALID");
    const text = layoutOf(layoutFiles([{ image }]));
    for (const limits of [{ layersMax: 1 }, { manifestBytesMax: 100 }]) {
      expect((await failureOf(resolve(text, undefined, testSourceOptions({ limits })))).code).toBe("LIMIT_EXCEEDED");
    }
  });

  it("follows links that stay inside, never one that leads out, and opens nothing but files", async () => {
    const outside = place("outside");
    writeFileSync(outside, image.layers[0]?.blob ?? "");
    const path = (text: string) => join(text.slice("oci:".length), blobOf(image.layers[0]?.descriptor.digest ?? ""));
    const opened = async (change: (file: string) => unknown) => {
      const text = layoutOf(layoutFiles([{ image }]));
      const file = path(text);
      rmSync(file);
      await change(file);
      await using source = await openSource(text, testSourceOptions(), call);
      const found = await source.resolve(undefined, call);
      return await readLayers(source, found);
    };
    const inside = await opened((file) => {
      writeFileSync(join(dirname(file), "renamed"), image.layers[0]?.blob ?? "");
      symlinkSync("renamed", file);
    });
    expect(inside[0]).toBe(image.layers[0]?.descriptor.digest);
    for (const change of [
      (file: string) => symlinkSync(outside, file),
      (file: string) => symlinkSync("../../../../../../../../../../etc/hostname", file),
      (file: string) => symlinkSync(file, file),
      (file: string) => execFileSync("mkfifo", [file]),
      (file: string) => mkdirSync(file),
      (file: string) => symlinkSync("/dev/zero", file),
    ]) {
      expect((await failureOf(opened(change))).code).toBe("IMAGE_SOURCE_UNREADABLE");
    }
    const socket = await failureOf(
      opened(async (file) => {
        // A socket's path has 107 bytes at most, so it is made elsewhere and moved.
        const server = createServer();
        const short = join(mkdtempSync(join(tmpdir(), "s-")), "s");
        await new Promise<void>((resolve) => server.listen(short, resolve));
        execFileSync("mv", [short, file]);
        server.close();
        rmSync(dirname(short), { recursive: true });
      }),
    );
    expect(socket.code).toBe("IMAGE_SOURCE_UNREADABLE");
  });

  it("does not follow a linked directory out either", async () => {
    const text = layoutOf(layoutFiles([{ image }]));
    const directory = text.slice("oci:".length);
    const elsewhere = place("blobs");
    execFileSync("mv", [join(directory, "blobs"), elsewhere]);
    symlinkSync(elsewhere, join(directory, "blobs"));
    expect((await failureOf(resolve(text))).code).toBe("IMAGE_SOURCE_UNREADABLE");
  });
});

describe("archives", () => {
  const files = () => layoutFiles([{ image, ref: "1" }]);
  const members = (map: Files): TarEntry[] => [...map].map(([path, content]) => ({ path, content }));

  it("take members in any order, with ./ before them, with directories between, in pax and GNU form", async () => {
    const reversed = [...files()].reverse();
    const odd: TarEntry[] = [
      { path: "./", type: "dir" },
      ...reversed.flatMap(([path, content], at): TarEntry[] => [
        { path: "blobs/sha256/", type: "dir" },
        { path, raw: at % 2 === 0 ? paxHeader({ path: `./${path}`, comment: "x" }) : gnuLongHeader("L", `.//${path}`) },
        { path: "wrong", content },
      ]),
    ];
    for (const bytes of [
      archiveOf(new Map(reversed), "./"),
      tarStream(odd),
      tarStream(members(files()), { end: "none" }),
    ]) {
      await using source = await openSource(fileOf("oci-archive", bytes), testSourceOptions(), call);
      const found = await source.resolve(undefined, call);
      expect(await readLayers(source, found)).toEqual(image.layers.map((entry) => entry.descriptor.digest));
    }
  });

  it("let the last of repeated members win", async () => {
    const wrong = layoutFiles([{ image: other }]).get("index.json") as Buffer;
    const first = fileOf("oci-archive", tarStream([{ path: "index.json", content: wrong }, ...members(files())]));
    expect((await resolve(first)).digest).toBe(image.descriptor.digest);
    const last = fileOf("oci-archive", tarStream([...members(files()), { path: "./index.json", content: wrong }]));
    expect((await failureOf(resolve(last))).code).toBe("IMAGE_BLOB_MISSING");
  });

  it.each([
    ["gzip", gzipSync],
    ["zstd", zstdCompressSync],
  ])("may be compressed as a whole by %s, and leave no file behind", async (_, pack) => {
    const temporaryDirectory = place("tmp");
    mkdirSync(temporaryDirectory);
    const options = testSourceOptions({ temporaryDirectory });
    for (const text of [
      fileOf("oci-archive", pack(ociArchive([{ image, ref: "1" }]))),
      fileOf("docker-archive", pack(dockerArchive([{ image, repoTags: ["a:1"] }]))),
    ]) {
      await using source = await openSource(text, options, call);
      expect(readdirSync(temporaryDirectory)).toEqual([]);
      const found = await source.resolve(undefined, call);
      expect(await readLayers(source, found)).toEqual(found.layers.map((entry) => entry.descriptor.digest));
    }
    const broken = pack(ociArchive([{ image, ref: "1" }])).subarray(0, -20);
    expect((await failureOf(resolve(fileOf("oci-archive", broken), undefined, options))).code).toBe(
      "IMAGE_SOURCE_UNREADABLE",
    );
    const bomb = testSourceOptions({ temporaryDirectory, limits: { layerBytesMax: 1000 } });
    expect((await failureOf(resolve(fileOf("oci-archive", pack(Buffer.alloc(5000))), undefined, bomb))).code).toBe(
      "LIMIT_EXCEEDED",
    );
    expect(readdirSync(temporaryDirectory)).toEqual([]);
  });

  const bad: [string, () => Buffer, string][] = [
    ["no tar", () => Buffer.from("x".repeat(2000)), "IMAGE_SOURCE_UNREADABLE"],
    ["empty", () => Buffer.alloc(0), "IMAGE_SOURCE_UNREADABLE"],
    ["shorter than a header", () => Buffer.from("abc"), "IMAGE_SOURCE_UNREADABLE"],
    ["zeros", () => Buffer.alloc(10240), "IMAGE_SOURCE_UNREADABLE"],
    ["truncated within a member", () => archiveOf(files()).subarray(0, 700), "IMAGE_SOURCE_UNREADABLE"],
    ["truncated within a header", () => archiveOf(files()).subarray(0, 1200), "IMAGE_SOURCE_UNREADABLE"],
    [
      "with a size of exabytes",
      () => tarStream([{ path: "index.json", content: "{}", declaredSize: 2n ** 60n }]),
      "IMAGE_SOURCE_UNREADABLE",
    ],
    [
      "with a pax size of exabytes",
      () => tarStream([{ path: "index.json", content: "{}", pax: { size: "1152921504606846976" } }]),
      "IMAGE_SOURCE_UNREADABLE",
    ],
    ["with a negative size", () => tarStream([{ path: "index.json", declaredSize: -1n }]), "IMAGE_SOURCE_UNREADABLE"],
    ["with a wrong checksum", () => tarStream([{ path: "index.json", checksum: 1 }]), "IMAGE_SOURCE_UNREADABLE"],
    [
      "with a damaged pax record",
      () => tarStream([{ path: "x", typeflag: "x", content: "99 path=a\n" }]),
      "IMAGE_SOURCE_UNREADABLE",
    ],
    [
      "with a pax header of megabytes",
      () => tarStream([{ path: "x", typeflag: "x", content: Buffer.alloc(2 * 1024 * 1024, 0x20) }]),
      "LIMIT_EXCEEDED",
    ],
    [
      "with sparse members",
      () =>
        tarStream([
          {
            path: "oci-layout",
            sparse: { form: "pax-1.0", realSize: 30, chunks: [{ offset: 0, data: '{"imageLayoutVersion":"1.0.0"}' }] },
          },
        ]),
      "IMAGE_SOURCE_UNREADABLE",
    ],
  ];
  it.each(bad)("refuse to be %s", async (_, bytes, code) => {
    expect((await failureOf(resolve(fileOf("oci-archive", bytes())))).code).toBe(code);
    expect((await failureOf(resolve(fileOf("docker-archive", bytes())))).code).toBe(code);
  });

  it("are regular files", async () => {
    const fifo = place("fifo");
    execFileSync("mkfifo", [fifo]);
    for (const text of [
      `oci-archive:${fifo}`,
      `docker-archive:${scratch}`,
      "oci-archive:/dev/zero",
      "oci-archive:/nonexistent",
    ]) {
      expect((await failureOf(resolve(text))).code).toBe("IMAGE_SOURCE_UNREADABLE");
    }
  });

  it("never make the reader hang, crash, or throw anything but its own errors", async () => {
    const good = [ociArchive([{ image, ref: "1" }]), dockerArchive([{ image, repoTags: ["a:1"] }])];
    const file = place("fuzz");
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...good),
        fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(255)), { maxLength: 8 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        async (start, changes, cut) => {
          const bytes = Buffer.from(start);
          // Changes fall on headers and JSON as often as on layers.
          for (const [where, value] of changes) bytes[Math.floor(where * (bytes.length - 1))] = value;
          writeFileSync(file, cut < 0.3 ? bytes.subarray(0, Math.floor(cut * 3 * bytes.length)) : bytes);
          for (const scheme of ["oci-archive", "docker-archive"]) {
            try {
              await resolve(`${scheme}:${file}`);
            } catch (error) {
              if (!(error instanceof StowageError)) throw error;
              expect(error.code).not.toMatch(/INTERNAL/);
            }
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("Docker archives", () => {
  const entry = { image, repoTags: ["alpine:3.20", "ghcr.io/a/b:1"] };

  it("of the old form get a Docker manifest over the blobs as they lie there", async () => {
    for (const gzipLayers of [false, true]) {
      const text = fileOf("docker-archive", dockerArchive([entry], { gzipLayers }));
      const found = await resolve(text);
      const again = await resolve(text);
      expect(again.digest).toBe(found.digest);
      expect(found.digest).toBe(sha256(found.manifest));
      expect(found.mediaType).toBe(mediaTypes.dockerManifest);
      expect(found.imageId).toBe(image.configDigest);
      expect(found.suggestedName).toBe("docker.io/alpine:3.20");
      const blobs = image.layers.map((built) => (gzipLayers ? gzipSync(built.tar) : built.tar));
      expect(JSON.parse(found.manifest.toString())).toEqual({
        schemaVersion: 2,
        mediaType: mediaTypes.dockerManifest,
        config: { mediaType: mediaTypes.dockerConfig, size: image.config.length, digest: image.configDigest },
        layers: blobs.map((blob) => ({
          mediaType: mediaTypes.dockerLayer + (gzipLayers ? ".gzip" : ""),
          size: blob.length,
          digest: sha256(blob),
        })),
      });
      await using source = await openSource(text, testSourceOptions(), call);
      expect(await readLayers(source, await source.resolve(undefined, call))).toEqual(blobs.map(sha256));
    }
  });

  it("follow links between layers, within the archive only", async () => {
    const twice = buildImage({ layers: [layer("a"), layer("b"), layer("a")] });
    const text = fileOf("docker-archive", dockerArchive([{ image: twice, repoTags: null }]));
    await using source = await openSource(text, testSourceOptions(), call);
    const found = await source.resolve(undefined, call);
    expect(await readLayers(source, found)).toEqual(twice.layers.map((built) => built.diffId));
    for (const target of ["../../../../etc/passwd", "/etc/passwd", "layer.tar", "nowhere"]) {
      const error = await failureOf(resolve(fileOf("docker-archive", linked(image, target))));
      expect(error.code).toBe("IMAGE_BLOB_MISSING");
    }
  });

  it("of Docker 25 are taken for the layout that they are", async () => {
    const text = fileOf("docker-archive", dockerArchive([entry], { form: "docker25" }));
    for (const suffix of ["", ":alpine:3.20", ":docker.io/library/alpine:3.20", ":3.20"]) {
      const found = await resolve(text + suffix);
      expect(found.digest).toBe(image.descriptor.digest);
      expect(found.suggestedName).toBe("docker.io/alpine:3.20");
    }
  });

  it("are asked by tag or id, and ambiguous without", async () => {
    const second = { image: other, repoTags: null };
    const text = fileOf("docker-archive", dockerArchive([entry, second]));
    const ambiguous = await failureOf(resolve(text));
    expect(ambiguous.code).toBe("IMAGE_AMBIGUOUS");
    expect(ambiguous.details.candidates).toHaveLength(2);
    expect((await resolve(`${text}:docker.io/library/alpine:3.20`)).suggestedName).toBe("docker.io/alpine:3.20");
    expect((await resolve(`${text}:ghcr.io/a/b:1`)).suggestedName).toBe("ghcr.io/a/b:1");
    const byId = await resolve(`${text}:${other.configDigest.slice("sha256:".length)}`);
    expect(byId.imageId).toBe(other.configDigest);
    expect(byId.suggestedName).toBeUndefined();
    expect((await failureOf(resolve(`${text}:nope:1`))).code).toBe("IMAGE_NOT_FOUND");
  });

  const manifestOf = (change: (entries: Record<string, unknown>[]) => unknown) => () => {
    const hex = image.configDigest.slice("sha256:".length);
    const entries = [{ Config: `${hex}.json`, RepoTags: null, Layers: ["0/layer.tar", "1/layer.tar"] }];
    return tarStream([
      { path: `${hex}.json`, content: image.config },
      { path: "wrong/".concat(hex, ".json"), content: `${image.config} ` },
      { path: "0/layer.tar", content: image.layers[0]?.tar ?? "" },
      { path: "1/layer.tar", content: image.layers[1]?.tar ?? "" },
      { path: "manifest.json", content: JSON.stringify(change(entries)) },
    ]);
  };
  const hostile: [string, () => Buffer, string][] = [
    ["null", manifestOf(() => null), "IMAGE_MANIFEST_INVALID"],
    ["nothing", manifestOf(() => []), "IMAGE_NOT_FOUND"],
    [
      "fewer layers than diffIDs",
      manifestOf(([entry]) => [{ ...entry, Layers: ["0/layer.tar"] }]),
      "IMAGE_MANIFEST_INVALID",
    ],
    ["no layers", manifestOf(([entry]) => [{ ...entry, Layers: null }]), "IMAGE_MANIFEST_INVALID"],
    [
      "a layer that is not there",
      manifestOf(([entry]) => [{ ...entry, Layers: ["0/layer.tar", "x"] }]),
      "IMAGE_BLOB_MISSING",
    ],
    [
      "a layer outside",
      manifestOf(([entry]) => [{ ...entry, Layers: ["../../etc/passwd", "/etc/passwd"] }]),
      "IMAGE_BLOB_MISSING",
    ],
    ["no configuration", manifestOf(([entry]) => [{ ...entry, Config: "x.json" }]), "IMAGE_BLOB_MISSING"],
    [
      "a configuration of another digest than its name",
      manifestOf(([entry]) => [{ ...entry, Config: `wrong/${String(entry?.Config)}` }]),
      "IMAGE_DIGEST_MISMATCH",
    ],
  ];
  it.each(hostile)("whose manifest.json says %s are refused", async (_, bytes, code) => {
    expect((await failureOf(resolve(fileOf("docker-archive", bytes())))).code).toBe(code);
  });

  it("have one platform", async () => {
    const error = await failureOf(resolve(fileOf("docker-archive", dockerArchive([entry])), "linux/arm64"));
    expect(error.code).toBe("IMAGE_PLATFORM_MISSING");
  });
});

function linked(built: BuiltImage, target: string): Buffer {
  const hex = built.configDigest.slice("sha256:".length);
  return tarStream([
    { path: `${hex}.json`, content: built.config },
    { path: "0/layer.tar", type: "symlink", linkTarget: target },
    { path: "1/layer.tar", content: built.layers[1]?.tar ?? "" },
    {
      path: "manifest.json",
      content: JSON.stringify([{ Config: `${hex}.json`, RepoTags: null, Layers: ["0/layer.tar", "1/layer.tar"] }]),
    },
  ]);
}

// Other people's images are not part of the project: STOWAGE_FIXTURES, else a folder beside the checkout.
const fixtures = process.env.STOWAGE_FIXTURES ?? join(import.meta.dirname, "../../../shared/fixtures");
const hasFixtures = existsSync(join(fixtures, "images"));
const isRequired = (process.env.STOWAGE_TEST_REQUIRE ?? "").split(",").includes("fixtures");
describe.skipIf(!hasFixtures && !isRequired)(
  hasFixtures ? "real images" : "real images SKIPPED: set STOWAGE_FIXTURES to the folder of fixtures",
  () => {
    it.each(["alpine-3.20", "layers", "debian-12-languages", "rpm-sqlite", "rpm-mariner"])("%s", async (name) => {
      const { gunzipSync } = await import("node:zlib");
      const truth = JSON.parse(gunzipSync(readFileSync(join(fixtures, "truth", `${name}.json.gz`))).toString()) as {
        manifestDigest: string;
        imageId: string;
        architecture: string;
        layers: { digest: string; mediaType: string; size: number; diffId: string }[];
      };
      await using source = await openSource(
        `oci-archive:${fixtures}/images/${name}.oci.tar`,
        testSourceOptions(),
        call,
      );
      const found = await source.resolve(undefined, call);
      expect(found.digest).toBe(truth.manifestDigest);
      expect(found.imageId).toBe(truth.imageId);
      expect(found.config.platform.architecture).toBe(truth.architecture);
      expect(
        found.layers.map(({ descriptor: { digest, mediaType, size }, diffId }) => ({
          digest,
          mediaType,
          size,
          diffId,
        })),
      ).toEqual(truth.layers);
      expect(await readLayers(source, found)).toEqual(truth.layers.map((entry) => entry.digest));
    });
  },
);
