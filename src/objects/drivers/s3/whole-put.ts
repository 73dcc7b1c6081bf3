import { createHash } from "node:crypto";
import { PutObjectCommand } from "@aws-sdk/client-s3";
import { StowageError } from "../../../errors/index.ts";
import type { Call } from "../../../runtime/index.ts";
import type { PhysicalKey, StoredBlob } from "../../driver.ts";
import { objectOf, requestFor, sha256 } from "./requests.ts";
import { findBlob, mayBeThere, storageHeaders, storageParameters, type Workshop } from "./workshop.ts";

/** Writes a blob in one request. Its answer may be lost: what lies there then is compared. */
export async function putWhole(
  shop: Workshop,
  key: PhysicalKey,
  bytes: Buffer,
  call: Call,
  digest = sha256(bytes),
): Promise<StoredBlob> {
  const { connection } = shop;
  const { bucket, prefix } = connection.configuration;
  const object = objectOf(prefix, key);
  const traits = await shop.objects(call);
  const headers = {
    ...(traits.verifiesChecksum ? { "x-amz-checksum-sha256": digest.toString("base64") } : {}),
    ...(traits.refusesOverwrite ? { "if-none-match": "*" } : {}),
    ...storageHeaders(connection.configuration),
  };
  const blob = { method: "PUT", key, headers, body: { bytes, sha256: digest } } as const;
  const command = () =>
    new PutObjectCommand({
      Bucket: bucket,
      Key: object,
      Body: bytes,
      ContentLength: bytes.length,
      ...(traits.verifiesChecksum ? { ChecksumSHA256: digest.toString("base64") } : {}),
      ...(traits.refusesOverwrite ? { IfNoneMatch: "*" } : {}),
      ...storageParameters(connection.configuration),
    });
  try {
    await connection.exchange(blob, command, requestFor("put", object, key), call);
  } catch (error) {
    if (!mayBeThere(error)) throw error;
    const found = await findBlob(connection, key, call);
    if (found === undefined) throw error;
    const md5 = () => createHash("md5").update(bytes).digest("hex");
    if (!found.isSame(bytes.length, digest.toString("base64"), md5)) {
      throw new StowageError("BACKEND_KEY_EXISTS", { driver: "s3", key }, { cause: error });
    }
  }
  const proven = traits.verifiesChecksum ? { digest: `sha256:${digest.toString("hex")}` } : {};
  return { key, sizeBytes: bytes.length, ...proven };
}
