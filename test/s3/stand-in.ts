import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import S3rver from "s3rver";

/** An S3 server within the test, from npm alone. */
export interface StandIn extends AsyncDisposable {
  readonly url: string;
  readonly directory: string;
}

interface Context {
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string | undefined>>;
  status: number;
  body: unknown;
}

interface NewObject {
  readonly bucket: string;
  readonly key: string;
  readonly content: Buffer | Readable;
  readonly metadata: unknown;
}

/**
 * s3rver with what it lacks for the driver: it knows neither how to abort a multipart upload nor how to list them, concurrent deletes make it fail, and it
 * answers a put before the object's file is there.
 */
export async function startStandIn(): Promise<StandIn> {
  const directory = await mkdtemp(join(tmpdir(), "stowage-s3rver-"));
  const server = new S3rver({ port: 0, address: "127.0.0.1", directory, silent: true, vhostBuckets: false });
  const uploadsOf = (bucket: string) => join(directory, bucket, "._S3rver_uploads");
  server.middleware.unshift(async (context: Context, next: () => Promise<void>) => {
    const [, bucket = ""] = context.path.split("/");
    const { uploadId, uploads, prefix = "" } = context.query;
    if (context.method === "DELETE" && uploadId !== undefined && /^[\w-]+$/.test(uploadId)) {
      await rm(join(uploadsOf(bucket), uploadId), { recursive: true, force: true });
      context.status = 204;
    } else if (context.method === "GET" && uploads !== undefined) {
      context.status = 200;
      context.body = listing(
        bucket,
        (await readUploads(uploadsOf(bucket))).filter(({ key }) => key.startsWith(prefix)),
      );
    } else await next();
  });
  const fileOf = (bucket: string, key: string, kind: string) => join(directory, bucket, `${key}._S3rver_${kind}`);
  const { store } = server;
  Object.assign(store, {
    // Its own makes the file after the answer: a deletion that comes before then finds nothing, and the object appears.
    async putObject({ bucket, key, content, metadata }: NewObject) {
      const bytes = Buffer.isBuffer(content) ? content : await buffer(content);
      const file = fileOf(bucket, key, "object");
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, bytes);
      const md5 = createHash("md5").update(bytes).digest("hex");
      await store.putMetadata(bucket, key, metadata, md5);
      return { size: bytes.length, md5 };
    },
    // Its own removes directories that a put beside it has just made.
    async deleteObject(bucket: string, key: string) {
      for (const kind of ["object", "object.md5", "metadata.json"]) {
        await rm(fileOf(bucket, key, kind), { force: true });
      }
    },
  });
  const { port } = await server.run();
  // A server that hangs up on idle connections may do so while a request is on its way: a fault, and not the one that tests are about.
  server.httpServer.keepAliveTimeout = 0;
  return {
    url: `http://127.0.0.1:${port}`,
    directory,
    async [Symbol.asyncDispose]() {
      server.httpServer.closeAllConnections();
      await server.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function readUploads(path: string): Promise<{ readonly id: string; readonly key: string }[]> {
  const ids = await readdir(path).catch(() => []);
  return await Promise.all(ids.map(async (id) => ({ id, key: await readFile(join(path, id, "key"), "utf8") })));
}

function listing(bucket: string, uploads: readonly { readonly id: string; readonly key: string }[]): string {
  const rows = uploads.map(({ id, key }) => `<Upload><Key>${key}</Key><UploadId>${id}</UploadId></Upload>`).join("");
  return `<ListMultipartUploadsResult><Bucket>${bucket}</Bucket>${rows}<IsTruncated>false</IsTruncated></ListMultipartUploadsResult>`;
}
