import { CreateBucketCommand, HeadBucketCommand, ListObjectsCommand } from "@aws-sdk/client-s3";
import { isCode, StowageError } from "../../../errors/index.ts";
import type { Call } from "../../../runtime/index.ts";
import type { S3Configuration } from "./configuration.ts";
import { Connection } from "./connection.ts";
import { refusalOf } from "./failures.ts";
import { requestFor } from "./requests.ts";
import { S3Driver, type S3DriverOptions } from "./s3-driver.ts";

/** @throws StowageError `BACKEND_UNREACHABLE`, `BACKEND_DENIED`, `BACKEND_CONTAINER_MISSING`, `CONFIG_INVALID` */
export async function openBucket(
  configuration: S3Configuration,
  options: S3DriverOptions,
  call: Call,
): Promise<S3Driver> {
  await using opening = new AsyncDisposableStack();
  const connection = opening.use(await Connection.open(configuration));
  try {
    await lookAt(connection, call);
  } catch (error) {
    if (!isCode(error, "BACKEND_CONTAINER_MISSING") || !configuration.createsBucket) throw error;
    await create(connection, call);
    await lookAt(connection, call);
  }
  opening.move();
  return new S3Driver(connection, options);
}

/** Whether the bucket is there and may be listed. */
async function lookAt(connection: Connection, call: Call): Promise<void> {
  const { bucket, prefix, url } = connection.configuration;
  const head = new HeadBucketCommand({ Bucket: bucket });
  try {
    await connection.send((client, options) => client.send(head, options), requestFor("open"), call);
  } catch (error) {
    const { status = 0 } = refusalOf(error) ?? {};
    if (status < 300 || status >= 500) throw error;
    // The answer to a HEAD has no body, so no code; the same question asked so that the server can say what is wrong. A 404 can mean the user, too.
    const list = new ListObjectsCommand({ Bucket: bucket, MaxKeys: 1, ...(prefix === "" ? {} : { Prefix: prefix }) });
    const ask = () => connection.send((client, options) => client.send(list, options), requestFor("open"), call);
    try {
      await ask();
    } catch (reason) {
      const refusal = refusalOf(reason);
      const region = refusal?.is("AuthorizationHeaderMalformed") ? refusal.region : undefined;
      if (url === undefined || region === undefined) throw reason;
      // Beside a url, the region is what requests are signed for, and the server knows best.
      connection.useRegion(region);
      await ask();
    }
  }
}

async function create(connection: Connection, call: Call): Promise<void> {
  const { bucket } = connection.configuration;
  const { region } = connection;
  const place =
    region === "us-east-1" ? {} : { CreateBucketConfiguration: { LocationConstraint: region as "eu-west-1" } };
  const command = new CreateBucketCommand({ Bucket: bucket, ...place });
  try {
    await connection.send((client, options) => client.send(command, options), requestFor("create"), call);
  } catch (error) {
    // Another process was faster.
    if (refusalOf(error)?.is("BucketAlreadyOwnedByYou")) return;
    if (!refusalOf(error)?.is("BucketAlreadyExists")) throw error;
    const reason = `the name ${bucket} is taken by another account`;
    throw new StowageError("CONFIG_INVALID", { key: "bucket", reason }, { cause: error, hint: "choose another name" });
  }
}
