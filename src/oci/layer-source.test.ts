import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "vitest";
import { layerSourceSuite } from "../../test/conformance/layer-source-suite.ts";
import {
  buildImage,
  type DockerArchiveEntry,
  dockerArchive,
  ociArchive,
  writeLayout,
} from "../../test/images/builder.ts";
import { startRegistry } from "../../test/registry/registry-server.ts";
import { testSourceOptions } from "../../test/registry/source-options.ts";
import { createCall } from "../runtime/index.ts";
import { openSource } from "./index.ts";

const call = createCall();
// Large enough that no socket or file buffer holds it at once, and not compressible.
const big = { content: [{ path: "big", content: randomBytes(6 * 1024 * 1024) }], compression: "gzip" } as const;
const image = buildImage({ layers: [big, [{ path: "f", content: "x" }]] });
const entry: DockerArchiveEntry = { image, repoTags: ["app:1"] };

async function start(text: string, cleanUp: () => Promise<void> | void) {
  const source = await openSource(text, testSourceOptions(), call);
  const { layers } = await source.resolve(undefined, call);
  return {
    source: source.layers,
    layers: layers.map((layer) => layer.descriptor),
    async [Symbol.asyncDispose]() {
      await source[Symbol.asyncDispose]();
      await cleanUp();
    },
  };
}

function inFile(scheme: string, bytes: () => Buffer) {
  return () => {
    const directory = mkdtempSync(join(tmpdir(), "stowage-test-"));
    writeFileSync(join(directory, "image.tar"), bytes());
    return start(`${scheme}:${directory}/image.tar`, () => rmSync(directory, { recursive: true }));
  };
}

layerSourceSuite("OCI layout", () => {
  const directory = mkdtempSync(join(tmpdir(), "stowage-test-"));
  writeLayout(directory, [{ image, ref: "1" }]);
  return start(`oci:${directory}`, () => rmSync(directory, { recursive: true }));
});
layerSourceSuite(
  "OCI archive",
  inFile("oci-archive", () => ociArchive([{ image, ref: "1" }])),
);
layerSourceSuite(
  "old Docker archive",
  inFile("docker-archive", () => dockerArchive([entry])),
);
layerSourceSuite(
  "old Docker archive of compressed layers",
  inFile("docker-archive", () => dockerArchive([entry], { gzipLayers: true })),
);
layerSourceSuite(
  "Docker 25 archive",
  inFile("docker-archive", () => dockerArchive([entry], { form: "docker25" })),
);
layerSourceSuite("registry in the test's process", async () => {
  const registry = await startRegistry();
  registry.push("team/app", image, "1");
  return start(`${registry.host}/team/app:1`, () => registry[Symbol.asyncDispose]());
});

// STOWAGE_TEST_REGISTRY=host:port names a real registry whose repository `test` holds one tag at least.
const real = process.env.STOWAGE_TEST_REGISTRY;
if (real !== undefined) {
  layerSourceSuite(`real registry at ${real}`, async () => {
    const answer = await fetch(`http://${real}/v2/test/tags/list`);
    const { tags } = (await answer.json()) as { tags: string[] };
    return start(`${real}/test:${tags[0]}`, () => undefined);
  });
} else {
  describe("layer source: real registry", () => {
    const isRequired = (process.env.STOWAGE_TEST_REQUIRE ?? "").split(",").includes("registry");
    it.skipIf(!isRequired)(
      "SKIPPED: set STOWAGE_TEST_REGISTRY=host:port to a registry with a repository `test`",
      () => {
        throw new Error("STOWAGE_TEST_REQUIRE asks for a registry, but STOWAGE_TEST_REGISTRY is not set");
      },
    );
  });
}
