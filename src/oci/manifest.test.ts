import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { buildImage, buildIndex, mediaTypes } from "../../test/images/builder.ts";
import { StowageError } from "../errors/index.ts";
import { pairLayers, parseConfig, parseManifest } from "./manifest.ts";

const image = buildImage({ layers: [[{ path: "f", content: "x" }]] });
const manifest = JSON.parse(image.bytes.toString()) as Record<string, unknown>;
const changed = (change: Record<string, unknown>) => Buffer.from(JSON.stringify({ ...manifest, ...change }));

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof StowageError) return error.code;
    throw error;
  }
  return "accepted";
}

describe("parseManifest", () => {
  it("reads manifests and indexes of both families", () => {
    expect(parseManifest(image.bytes, mediaTypes.ociManifest).kind).toBe("manifest");
    expect(parseManifest(buildImage({ layers: [], docker: true }).bytes, mediaTypes.dockerManifest).kind).toBe(
      "manifest",
    );
    expect(parseManifest(buildIndex([image]).bytes, mediaTypes.ociIndex).kind).toBe("index");
    expect(parseManifest(buildIndex([image], { docker: true }).bytes, undefined).kind).toBe("index");
  });

  it("goes by the shape where neither the document nor the answer says a type", () => {
    const untyped = changed({ mediaType: undefined });
    expect(parseManifest(untyped, undefined).mediaType).toBe(mediaTypes.ociManifest);
    expect(parseManifest(untyped, "application/json").mediaType).toBe(mediaTypes.ociManifest);
    expect(parseManifest(untyped, mediaTypes.dockerManifest).mediaType).toBe(mediaTypes.dockerManifest);
    expect(parseManifest(Buffer.from('{"schemaVersion":2,"manifests":[]}'), "text/plain").kind).toBe("index");
  });

  it("takes null as absent", () => {
    const nulls = changed({ annotations: null, subject: null, layers: null, artifactType: null });
    expect(parseManifest(nulls, undefined)).toMatchObject({ kind: "manifest", layers: [] });
  });

  it.each([
    ["another type than announced", image.bytes, mediaTypes.ociIndex, "IMAGE_MANIFEST_INVALID"],
    ["index and manifest at once", changed({ manifests: [] }), undefined, "IMAGE_MANIFEST_INVALID"],
    ["index and manifest at once, in Go's eyes", changed({ Manifests: [] }), undefined, "IMAGE_MANIFEST_INVALID"],
    [
      "an index with layers",
      Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [], fsLayers: [] })),
      undefined,
      "IMAGE_MANIFEST_INVALID",
    ],
    ["schema 1", Buffer.from('{"schemaVersion":1,"fsLayers":[],"history":[]}'), undefined, "IMAGE_SCHEMA1_UNSUPPORTED"],
    [
      "schema 1, signed",
      Buffer.from('{"schemaVersion":1,"fsLayers":[],"signatures":[]}'),
      "application/vnd.docker.distribution.manifest.v1+prettyjws",
      "IMAGE_SCHEMA1_UNSUPPORTED",
    ],
    [
      "an artifact by its configuration",
      changed({
        config: { mediaType: "application/vnd.cncf.helm.config.v1+json", digest: image.configDigest, size: 2 },
      }),
      undefined,
      "IMAGE_NOT_A_CONTAINER_IMAGE",
    ],
    [
      "an artifact by its layers",
      changed({ layers: [{ ...image.layers[0]?.descriptor, mediaType: "application/vnd.in-toto+json" }] }),
      undefined,
      "IMAGE_NOT_A_CONTAINER_IMAGE",
    ],
    [
      "encrypted layers",
      changed({ layers: [{ ...image.layers[0]?.descriptor, mediaType: `${mediaTypes.ociLayer}+gzip+encrypted` }] }),
      undefined,
      "IMAGE_NOT_A_CONTAINER_IMAGE",
    ],
    ["an unknown type", changed({ mediaType: "application/x" }), undefined, "IMAGE_NOT_A_CONTAINER_IMAGE"],
    ["no JSON", Buffer.from("<html>"), undefined, "IMAGE_MANIFEST_INVALID"],
    ["invalid UTF-8", Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), undefined, "IMAGE_MANIFEST_INVALID"],
    ["an array", Buffer.from("[]"), undefined, "IMAGE_MANIFEST_INVALID"],
    ["deep nesting", Buffer.from(`${"[".repeat(1e6)}${"]".repeat(1e6)}`), undefined, "IMAGE_MANIFEST_INVALID"],
    [
      "deep nesting where nobody looks",
      Buffer.from(image.bytes.toString().replace("{", `{"x":${"[".repeat(1000)}${"]".repeat(1000)},`)),
      undefined,
      "IMAGE_MANIFEST_INVALID",
    ],
    [
      "a size beyond 2^53",
      Buffer.from(image.bytes.toString().replace(/"size":\d+/, '"size":9007199254740993')),
      undefined,
      "IMAGE_MANIFEST_INVALID",
    ],
    [
      "a negative size",
      Buffer.from(image.bytes.toString().replace(/"size":\d+/, '"size":-1')),
      undefined,
      "IMAGE_MANIFEST_INVALID",
    ],
    [
      "a digest that is a path",
      Buffer.from(image.bytes.toString().replaceAll(/sha256:[0-9a-f]{64}/g, "sha256:../../../etc/passwd")),
      undefined,
      "IMAGE_MANIFEST_INVALID",
    ],
    ["an unknown schema version", changed({ schemaVersion: 3 }), undefined, "IMAGE_MANIFEST_INVALID"],
  ])("refuses %s", (_, bytes, announced, code) => {
    expect(codeOf(() => parseManifest(bytes, announced))).toBe(code);
  });

  it("lets duplicate keys keep the last, and __proto__ change nothing", () => {
    const text = image.bytes.toString().replace("{", '{"schemaVersion":1,"__proto__":{"polluted":true},');
    expect(parseManifest(Buffer.from(text), undefined).kind).toBe("manifest");
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });

  it("throws nothing but StowageErrors, whatever comes", () => {
    fc.assert(
      fc.property(
        fc.json(),
        fc.dictionary(fc.constantFrom(...Object.keys(manifest), "manifests"), fc.jsonValue()),
        (text, change) => {
          codeOf(() => parseManifest(Buffer.from(text), undefined));
          codeOf(() => parseManifest(changed(change), undefined));
          codeOf(() => parseConfig(Buffer.from(text)));
        },
      ),
    );
  });

  it("accepts the configuration types that old registries made up, in Docker manifests only", () => {
    const odd = { config: { mediaType: "application/octet-stream", digest: image.configDigest, size: 2 } };
    const docker = Buffer.from(JSON.stringify({ ...manifest, ...odd, mediaType: mediaTypes.dockerManifest }));
    expect(parseManifest(docker, undefined).kind).toBe("manifest");
    expect(codeOf(() => parseManifest(changed(odd), undefined))).toBe("IMAGE_NOT_A_CONTAINER_IMAGE");
  });
});

describe("parseConfig", () => {
  it("reads everything that is used, and takes null as absent", () => {
    const raw = Buffer.from(
      JSON.stringify({
        architecture: "arm64",
        variant: "v8",
        os: "linux",
        created: null,
        author: "A",
        config: {
          User: "1000",
          Env: ["A=b"],
          Entrypoint: null,
          Cmd: ["sh"],
          Labels: { a: "b" },
          ExposedPorts: { "80/tcp": {} },
          Volumes: null,
        },
        rootfs: { type: "layers", diff_ids: [`sha256:${"0".repeat(64)}`] },
        history: [{ created_by: "RUN x", empty_layer: true, created: "2020-01-01T00:00:00Z" }, { comment: "c" }],
      }),
    );
    const { config, diffIds } = parseConfig(raw);
    expect(config).toEqual({
      platform: { os: "linux", architecture: "arm64" },
      created: undefined,
      author: "A",
      user: "1000",
      environment: ["A=b"],
      entrypoint: undefined,
      command: ["sh"],
      labels: { a: "b" },
      exposedPorts: ["80/tcp"],
      history: [
        { createdBy: "RUN x", isEmptyLayer: true, created: "2020-01-01T00:00:00Z" },
        { createdBy: "", isEmptyLayer: false, comment: "c" },
      ],
      raw,
    });
    expect(diffIds).toHaveLength(1);
  });

  it("knows labels called __proto__ and constructor for what they are: data", () => {
    const raw = Buffer.from('{"config":{"Labels":{"__proto__":"x","constructor":"y"}}}');
    const { config } = parseConfig(raw);
    expect(config.labels.constructor).toBe("y");
    expect(Object.getPrototypeOf(config.labels)).toBe(Object.prototype);
    expect(config.platform).toEqual({ os: "linux", architecture: "amd64" });
  });

  it.each([
    '{"rootfs":{"diff_ids":["sha256:1"]}}',
    `{"rootfs":{"diff_ids":["sha512:${"0".repeat(128)}"]}}`,
    '{"config":{"Env":"x"}}',
  ])("refuses %s", (text) => {
    expect(codeOf(() => parseConfig(Buffer.from(text)))).toBe("IMAGE_MANIFEST_INVALID");
  });
});

describe("pairLayers", () => {
  const layerOf = (mediaType: string) => {
    const spec = { content: [{ path: "f" }], mediaType };
    const built = buildImage({ layers: [spec] });
    const parsed = parseManifest(built.bytes, undefined);
    if (parsed.kind !== "manifest") throw new Error("not a manifest");
    return pairLayers(parsed.layers, parseConfig(built.config).diffIds)[0];
  };

  it.each([
    ["application/vnd.oci.image.layer.v1.tar", "none", false],
    ["application/vnd.oci.image.layer.v1.tar+gzip", "gzip", false],
    ["application/vnd.oci.image.layer.v1.tar+zstd", "zstd", false],
    ["application/vnd.oci.image.layer.nondistributable.v1.tar", "none", true],
    ["application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "gzip", true],
    ["application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", "zstd", true],
    ["application/vnd.docker.image.rootfs.diff.tar", undefined, false],
    ["application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip", false],
    ["application/vnd.docker.image.rootfs.diff.tar.zstd", "zstd", false],
    ["application/vnd.docker.image.rootfs.diff.tar+zstd", "zstd", false],
    ["application/vnd.docker.image.rootfs.foreign.diff.tar", undefined, true],
    ["application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "gzip", true],
  ])("%s", (mediaType, compression, isForeign) => {
    expect(layerOf(mediaType)).toMatchObject({ compression, isForeign });
  });

  it("refuses another number of diffIDs than layers", () => {
    const parsed = parseManifest(image.bytes, undefined);
    if (parsed.kind !== "manifest") throw new Error("not a manifest");
    expect(codeOf(() => pairLayers(parsed.layers, []))).toBe("IMAGE_MANIFEST_INVALID");
  });
});
