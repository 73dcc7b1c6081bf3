import { createHash, type Hash } from "node:crypto";
import { pipeline, type Readable, Transform, type TransformCallback } from "node:stream";
import { StowageError } from "../errors/index.ts";
import type { ObjectVersion } from "./store.ts";

/** Counts and digests the bytes that pass. */
export class Digester {
  readonly #hash: Hash = createHash("sha256");
  #bytes = 0;

  update(chunk: Buffer): void {
    this.#hash.update(chunk);
    this.#bytes += chunk.length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** `sha256:…`; only once. */
  digest(): string {
    return `sha256:${this.#hash.digest("hex")}`;
  }
}

/**
 * The bytes of `version` as they pass; the stream fails instead of ending when one of them was wrong or missing.
 *
 * @param judge what to fail with, when there is more to say than that a byte was wrong
 */
export function verified(
  body: Readable,
  version: ObjectVersion,
  judge: (mismatch: StowageError) => Promise<Error> = async (mismatch) => mismatch,
): Readable {
  const digester = new Digester();
  const fail = (actual: string, done: TransformCallback) => {
    judge(mismatch(version, actual)).then(done, done);
  };
  const check = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      digester.update(chunk);
      if (digester.bytes > version.contentBytes) fail(`more than ${version.contentBytes} bytes`, done);
      else done(null, chunk);
    },
    flush(done) {
      const actual = digester.digest();
      if (actual === version.contentDigest) done();
      else fail(actual, done);
    },
  });
  return through(body, check);
}

/** The digester sees what passes. */
export function digested(body: Readable, digester: Digester): Readable {
  const pass = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      digester.update(chunk);
      done(null, chunk);
    },
  });
  return through(body, pass);
}

/** `body` through `transform`: failures and a premature end go down the stream, its destruction goes up. */
function through(body: Readable, transform: Transform): Readable {
  // The result carries the failure.
  return pipeline(body, transform, () => {});
}

function mismatch({ ref, contentDigest }: ObjectVersion, actual: string): StowageError {
  return new StowageError(
    "OBJECT_DIGEST_MISMATCH",
    { bucket: ref.bucket, key: ref.key, expected: contentDigest, actual },
    { hint: "the storage has damaged it: delete the image and analyse it again" },
  );
}
