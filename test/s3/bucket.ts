import { randomBytes } from "node:crypto";
import {
  DeleteBucketCommand,
  DeleteObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsCommand,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import { s3Driver } from "../../src/objects/drivers/s3/index.ts";
import { openBucket } from "../../src/objects/drivers/s3/open-bucket.ts";
import { type Call, createCall, defaultRetryPolicy, systemClock } from "../../src/runtime/index.ts";
import type { DriverUnderTest } from "../conformance/driver-suite.ts";

/** A server that tests may use. */
export interface S3Server {
  readonly name: string;
  readonly url: string;
  readonly access_key: string;
  readonly secret_key: string;
}

/** The smallest part that real servers take, so that many cases are multipart uploads. */
const partBytes = 5 * 1024 * 1024;

/** No upload waits the full time for buffers that others will not give back. */
const hurried = {
  ...systemClock,
  sleep: (ms: number, call: Call) => systemClock.sleep(Math.min(ms, 500), call),
};

/** The driver on a bucket that is made for it, with a raw client beside it that sees all that lies there. */
export async function driverOnNewBucket(server: S3Server): Promise<DriverUnderTest> {
  const bucket = `stowage-test-${randomBytes(6).toString("hex")}`;
  const { name: _, ...place } = server;
  const config = s3Driver.schema.parse({ ...place, bucket, create_bucket: true, prefix: "some where/" });
  const call = createCall();
  const driver = await openBucket(
    config as Parameters<typeof openBucket>[0],
    { partBytes, retryPolicy: { ...defaultRetryPolicy, clock: hurried } },
    call,
  );
  const client = new S3Client({
    endpoint: server.url,
    region: "us-east-1",
    forcePathStyle: true,
    credentials: { accessKeyId: server.access_key, secretAccessKey: server.secret_key },
  });
  return {
    driver,
    // Twenty of them are two parts.
    chunkBytes: 512 * 1024,
    async remains() {
      const { Contents = [] } = await client.send(new ListObjectsCommand({ Bucket: bucket }));
      const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: bucket }));
      return [...Contents.map(({ Key }) => `object ${Key}`), ...Uploads.map(({ Key }) => `upload ${Key}`)];
    },
    async litter(key) {
      const wrong = key.startsWith("ff") ? "00" : "ff";
      const names = ["some where/top.bin", "some where/other/é.txt", `some where/${wrong}/${key}`, `some where/${key}`];
      const outside = "elsewhere/x";
      for (const [index, Key] of [...names, outside].entries()) {
        await client.send(new PutObjectCommand({ Bucket: bucket, Key, Body: Buffer.alloc(100 + index) }));
      }
      return {
        foreign: names.map((name, index) => ({ name, sizeBytes: 100 + index })),
        async [Symbol.asyncDispose]() {
          for (const Key of [...names, outside]) await client.send(new DeleteObjectCommand({ Bucket: bucket, Key }));
        },
      };
    },
    async [Symbol.asyncDispose]() {
      await driver[Symbol.asyncDispose]();
      await client.send(new DeleteBucketCommand({ Bucket: bucket }));
      client.destroy();
    },
  };
}
