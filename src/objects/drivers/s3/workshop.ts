import { HeadObjectCommand } from "@aws-sdk/client-s3";
import { isCode } from "../../../errors/index.ts";
import type { Call, RetryPolicy } from "../../../runtime/index.ts";
import type { PhysicalKey } from "../../driver.ts";
import type { S3Configuration } from "./configuration.ts";
import type { Connection } from "./connection.ts";
import { refusalOf } from "./failures.ts";
import type { PartBuffers } from "./part-buffers.ts";
import { objectOf, requestFor } from "./requests.ts";
import type { ServerTraits } from "./server-traits.ts";

/** What a driver's writers share. */
export interface Workshop {
  readonly connection: Connection;
  readonly buffers: PartBuffers;
  readonly retryPolicy: RetryPolicy;
  /** Of single requests. */
  objects(call: Call): Promise<ServerTraits>;
  /** Of multipart uploads. */
  uploads(call: Call): Promise<ServerTraits>;
}

/** Where and how new objects are kept, as far as the configuration says so. */
export function storageParameters({ storageClass, encryption, encryptionKey }: S3Configuration) {
  return {
    ...(storageClass === undefined ? {} : { StorageClass: storageClass as "STANDARD" }),
    ...(encryption === undefined ? {} : { ServerSideEncryption: encryption }),
    ...(encryptionKey === undefined ? {} : { SSEKMSKeyId: encryptionKey }),
  };
}

/** The same as HTTP has it. */
export function storageHeaders({ storageClass, encryption, encryptionKey }: S3Configuration): Record<string, string> {
  return {
    ...(storageClass === undefined ? {} : { "x-amz-storage-class": storageClass }),
    ...(encryption === undefined ? {} : { "x-amz-server-side-encryption": encryption }),
    ...(encryptionKey === undefined ? {} : { "x-amz-server-side-encryption-aws-kms-key-id": encryptionKey }),
  };
}

/** Whether a put failed because something lies under its key, or because another writes there. What lies there may be its own, if an answer was lost. */
export function mayBeThere(error: unknown): boolean {
  return isCode(error, "BACKEND_KEY_EXISTS") || refusalOf(error)?.status === 409;
}

/** A blob as the server describes it. */
export interface FoundBlob {
  readonly checksum: string | undefined;
  isSame(sizeBytes: number, checksum: string, etag: () => string | undefined): boolean;
}

export async function findBlob(connection: Connection, key: PhysicalKey, call: Call): Promise<FoundBlob | undefined> {
  const { bucket, prefix } = connection.configuration;
  const object = objectOf(prefix, key);
  const command = new HeadObjectCommand({ Bucket: bucket, Key: object, ChecksumMode: "ENABLED" });
  const found = await connection
    .send((client, options) => client.send(command, options), requestFor("get", object, key), call)
    .catch((error: unknown) => {
      if (isCode(error, "BACKEND_KEY_MISSING")) return undefined;
      throw error;
    });
  if (found === undefined) return undefined;
  const { ContentLength, ChecksumSHA256, ETag } = found;
  return {
    checksum: ChecksumSHA256,
    isSame(sizeBytes, checksum, etag) {
      if (ContentLength !== sizeBytes) return false;
      if (ChecksumSHA256 !== undefined) return ChecksumSHA256 === checksum;
      return ETag !== undefined && ETag.replaceAll('"', "") === etag();
    },
  };
}
