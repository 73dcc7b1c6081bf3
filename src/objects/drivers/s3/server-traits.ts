import { randomBytes } from "node:crypto";
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  PutObjectCommand,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import { StowageError } from "../../../errors/index.ts";
import { type Call, createCall } from "../../../runtime/index.ts";
import type { Connection } from "./connection.ts";
import { refusalOf } from "./failures.ts";
import { requestFor, sha256 } from "./requests.ts";

/** What a server really does, found out by trying: many take a header and ignore it. */
export interface ServerTraits {
  /** It refuses a body that has not the SHA-256 that was sent with it. */
  readonly verifiesChecksum: boolean;
  /** It refuses to overwrite when asked to. */
  readonly refusesOverwrite: boolean;
}

const probeBody = Buffer.from("stowage: may be deleted\n");
const right = sha256(probeBody).toString("base64");
const wrong = sha256(Buffer.from("other bytes")).toString("base64");

/** Single requests: three or four, on an object of its own that is deleted again. */
export async function probeObjects(connection: Connection, call: Call): Promise<ServerTraits> {
  const { bucket, prefix } = connection.configuration;
  const object = probeName(prefix);
  const request = requestFor("put", object);
  const put = (extra: { ChecksumSHA256?: string; IfNoneMatch?: string }) =>
    isAccepted(() =>
      connection.send(
        (client, options) =>
          client.send(new PutObjectCommand({ Bucket: bucket, Key: object, Body: probeBody, ...extra }), options),
        request,
        call,
      ),
    );
  try {
    const verifiesChecksum = !(await put({ ChecksumSHA256: wrong })) && (await put({ ChecksumSHA256: right }));
    if (!verifiesChecksum && !(await put({}))) {
      throw new StowageError("BACKEND_FAILED", { driver: "s3", operation: "put", reason: "it refuses an object" });
    }
    return { verifiesChecksum, refusesOverwrite: !(await put({ IfNoneMatch: "*" })) };
  } finally {
    await discard(connection, object, call);
  }
}

/** The same of multipart uploads. What single requests don't do is not tried. */
export async function probeUploads(connection: Connection, single: ServerTraits, call: Call): Promise<ServerTraits> {
  if (!single.verifiesChecksum && !single.refusesOverwrite) return single;
  const { bucket, prefix } = connection.configuration;
  const object = probeName(prefix);
  const request = requestFor("put", object);
  const target = { Bucket: bucket, Key: object };
  const create = (extra: { ChecksumAlgorithm?: "SHA256" }) =>
    connection.send(
      (client, options) => client.send(new CreateMultipartUploadCommand({ ...target, ...extra }), options),
      request,
      call,
    );
  const { UploadId } = await create(single.verifiesChecksum ? { ChecksumAlgorithm: "SHA256" } : {});
  const part = (extra: { ChecksumSHA256?: string }) =>
    connection.send(
      (client, options) =>
        client.send(new UploadPartCommand({ ...target, UploadId, PartNumber: 1, Body: probeBody, ...extra }), options),
      request,
      call,
    );
  try {
    const verifiesChecksum = single.verifiesChecksum && !(await isAccepted(() => part({ ChecksumSHA256: wrong })));
    if (!single.refusesOverwrite) return { verifiesChecksum, refusesOverwrite: false };
    await connection.send(
      (client, options) => client.send(new PutObjectCommand({ ...target, Body: probeBody }), options),
      request,
      call,
    );
    const { ETag } = await part(single.verifiesChecksum ? { ChecksumSHA256: right } : {});
    const checksum = single.verifiesChecksum ? { ChecksumSHA256: right } : {};
    const isOverwritten = await isAccepted(() =>
      connection.send(
        (client, options) =>
          client.send(
            new CompleteMultipartUploadCommand({
              ...target,
              UploadId,
              IfNoneMatch: "*",
              MultipartUpload: { Parts: [{ PartNumber: 1, ETag, ...checksum }] },
            }),
            options,
          ),
        request,
        call,
      ),
    );
    return { verifiesChecksum, refusesOverwrite: !isOverwritten };
  } finally {
    await discard(connection, object, call, UploadId);
  }
}

/** False when the server refuses the request for what it is; a failure that says nothing of it is thrown. */
async function isAccepted(work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    const { status = 0 } = refusalOf(error) ?? {};
    if (![400, 409, 412, 422, 501].includes(status)) throw error;
    return false;
  }
}

/** Not the shape of a key: no listing of ours shows it. */
function probeName(prefix: string): string {
  return `${prefix}.stowage-probe-${randomBytes(8).toString("hex")}`;
}

/** Also when the call has been aborted meanwhile. */
async function discard(connection: Connection, object: string, { log }: Call, uploadId?: string): Promise<void> {
  const call = createCall({ log });
  const target = { Bucket: connection.configuration.bucket, Key: object };
  if (uploadId !== undefined) {
    const abort = new AbortMultipartUploadCommand({ ...target, UploadId: uploadId });
    await connection
      .send((client, options) => client.send(abort, options), requestFor("abort upload", object), call)
      .catch((error: unknown) => {
        // It was completed, by a server that overwrites.
        if (!refusalOf(error)?.is("NoSuchUpload")) throw error;
      });
  }
  const request = requestFor("delete", object);
  await connection.send((client, options) => client.send(new DeleteObjectCommand(target), options), request, call);
}
