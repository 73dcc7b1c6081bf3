import { DeleteBucketCommand, DeleteObjectsCommand, paginateListObjectsV2, S3Client } from "@aws-sdk/client-s3";

/** The SDK as its documentation uses it, for the bucket that a driver's configuration names. */
export function clientOf(config: Readonly<Record<string, unknown>>): S3Client {
  return new S3Client({
    endpoint: String(config.url),
    region: "us-east-1",
    forcePathStyle: true,
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    credentials: { accessKeyId: String(config.access_key), secretAccessKey: String(config.secret_key) },
  });
}

/** Removes a run's own bucket, with all that lies in it: a run leaves gigabytes. */
export async function removeBucket(config: Readonly<Record<string, unknown>>): Promise<void> {
  const client = clientOf(config);
  const bucket = { Bucket: String(config.bucket) };
  for await (const { Contents = [] } of paginateListObjectsV2({ client }, bucket)) {
    const objects = Contents.map(({ Key }) => ({ Key }));
    if (objects.length > 0) await client.send(new DeleteObjectsCommand({ ...bucket, Delete: { Objects: objects } }));
  }
  await client.send(new DeleteBucketCommand(bucket));
  client.destroy();
}
