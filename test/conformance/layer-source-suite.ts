import { createHash } from "node:crypto";
import { readSync } from "node:fs";
import type { Readable } from "node:stream";
import { describe, expect, it } from "vitest";
import { StowageError } from "../../src/errors/index.ts";
import { type Descriptor, digestAlgorithm, type LayerSource, parseDigest } from "../../src/oci/index.ts";
import { createCall } from "../../src/runtime/index.ts";
import { failureOf } from "./failure.ts";

/** A source under test, with at least one layer that it holds; the largest should not fit into one read. */
export interface LayerSourceUnderTest extends AsyncDisposable {
  readonly source: LayerSource;
  readonly layers: readonly Descriptor[];
}

/** What every {@link LayerSource} must do, whatever stands behind it. */
export function layerSourceSuite(name: string, start: () => Promise<LayerSourceUnderTest>): void {
  describe(`layer source: ${name}`, () => {
    it("hands out each layer as it is stored", async () => {
      await using subject = await start();
      expect(subject.layers.length).toBeGreaterThan(0);
      for (const layer of subject.layers) expect(await read(subject.source, layer)).toEqual(identity(layer));
    });

    it("hands out several at once, also the same one", async () => {
      await using subject = await start();
      const twice = [...subject.layers, ...subject.layers];
      const found = await Promise.all(twice.map((layer) => read(subject.source, layer)));
      expect(found).toEqual(twice.map(identity));
    });

    it("says where a layer lies in a file, if it lies in one", async () => {
      await using subject = await start();
      for (const layer of subject.layers) {
        await using file = await subject.source.openFile(layer, createCall());
        if (!file) continue;
        const bytes = Buffer.alloc(file.size);
        readSync(file.descriptor, bytes, 0, file.size, file.start);
        const algorithm = digestAlgorithm(layer.digest);
        expect(`${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`).toBe(layer.digest);
        const error = await failureOf(subject.source.openFile({ ...layer, size: layer.size + 1 }, createCall()));
        expect(error.code).toBe("IMAGE_SIZE_MISMATCH");
        expect((await failureOf(subject.source.openFile(missing, createCall()))).code).toBe("IMAGE_BLOB_MISSING");
      }
    });

    it("says what it has and what it has not", async () => {
      await using subject = await start();
      for (const layer of subject.layers) expect(await subject.source.has(layer, createCall())).toBe(true);
      expect(await subject.source.has(missing, createCall())).toBe(false);
    });

    it("names the blob that is missing", async () => {
      await using subject = await start();
      const error = await failureOf(subject.source.open(missing, createCall()));
      expect(error.code).toBe("IMAGE_BLOB_MISSING");
      expect(error.details.digest).toBe(missing.digest);
    });

    it("refuses a blob of another size than the descriptor's, at the latest at its end", async () => {
      await using subject = await start();
      for (const layer of subject.layers) {
        for (const change of [-1, 1]) {
          const error = await failureOf(read(subject.source, { ...layer, size: layer.size + change }));
          expect(error.code).toBe("IMAGE_SIZE_MISMATCH");
        }
      }
    });

    it("lets go of a stream that is not wanted any more", async () => {
      await using subject = await start();
      const layer = largest(subject.layers);
      const body = await subject.source.open(layer, createCall());
      for await (const chunk of body) {
        expect(chunk.length).toBeGreaterThan(0);
        break;
      }
      expect(body.destroyed).toBe(true);
      expect(await read(subject.source, layer)).toEqual(identity(layer));
    });

    it("does nothing for a call that was aborted before", async () => {
      await using subject = await start();
      const call = createCall({ signal: AbortSignal.abort() });
      const error = await failureOf(read(subject.source, largest(subject.layers), call));
      expect(error.code).toBe("INPUT_INTERRUPTED");
    });

    it("ends a stream whose call is aborted", async () => {
      await using subject = await start();
      const controller = new AbortController();
      const reason = new StowageError("INPUT_INTERRUPTED", { what: "the test" });
      const body = await subject.source.open(largest(subject.layers), createCall({ signal: controller.signal }));
      controller.abort(reason);
      const error = await failureOf(consume(body));
      expect(error).toBe(reason);
      expect(body.destroyed).toBe(true);
    });
  });
}

const missing: Descriptor = {
  mediaType: "application/vnd.oci.image.layer.v1.tar",
  digest: parseDigest(`sha256:${"0".repeat(63)}1`),
  size: 5,
};

function largest(layers: readonly Descriptor[]): Descriptor {
  return layers.reduce((left, right) => (right.size > left.size ? right : left));
}

function identity(layer: Descriptor) {
  return { digest: layer.digest, size: layer.size };
}

async function read(source: LayerSource, layer: Descriptor, call = createCall()) {
  return consume(await source.open(layer, call), digestAlgorithm(layer.digest));
}

async function consume(body: Readable, algorithm = "sha256") {
  const hash = createHash(algorithm);
  let size = 0;
  for await (const chunk of body) {
    hash.update(chunk as Buffer);
    size += (chunk as Buffer).length;
  }
  return { digest: `${algorithm}:${hash.digest("hex")}`, size };
}
