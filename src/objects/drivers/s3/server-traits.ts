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
import type { Connection, Work } from "./connection.ts";
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

interface Extra {
  readonly ChecksumSHA256?: string;
  readonly IfNoneMatch?: string;
}

/** Single requests: three or four, on an object of its own that is deleted again. */
export async function probeObjects(connection: Connection, call: Call): Promise<ServerTraits> {
  const target = { Bucket: connection.configuration.bucket, Key: probeName(connection) };
  const put = (extra: Extra) =>
    outcomeOf(
      connection.send(
        (client, options) => client.send(new PutObjectCommand({ ...target, Body: probeBody, ...extra }), options),
        requestFor("put", target.Key),
        call,
      ),
    );
  try {
    const verifiesChecksum = isVerified(await put({ ChecksumSHA256: wrong }), await put({ ChecksumSHA256: right }));
    // Where the header is refused whatever it says, nothing lies there yet.
    const plain = verifiesChecksum ? "accepted" : await put({});
    if (plain !== "accepted") {
      throw new StowageError("BACKEND_FAILED", { driver: "s3", operation: "put", reason: "it refuses a small object" });
    }
    return { verifiesChecksum, refusesOverwrite: (await put({ IfNoneMatch: "*" })) === "exists" };
  } finally {
    await discard(connection, target, call);
  }
}

/** The same of multipart uploads. What single requests don't do is not tried. */
export async function probeUploads(connection: Connection, single: ServerTraits, call: Call): Promise<ServerTraits> {
  if (!single.verifiesChecksum && !single.refusesOverwrite) return single;
  const object = { Bucket: connection.configuration.bucket, Key: probeName(connection) };
  const send = <Output>(work: Work<Output>) => connection.send(work, requestFor("put", object.Key), call);
  const algorithm = single.verifiesChecksum ? ({ ChecksumAlgorithm: "SHA256" } as const) : {};
  const { UploadId } = await send((client, options) =>
    client.send(new CreateMultipartUploadCommand({ ...object, ...algorithm }), options),
  );
  const target = { ...object, UploadId };
  const putPart = (extra: Extra) =>
    send((client, options) =>
      client.send(new UploadPartCommand({ ...target, PartNumber: 1, Body: probeBody, ...extra }), options),
    );
  try {
    const checksum = single.verifiesChecksum ? { ChecksumSHA256: right } : {};
    const refused = single.verifiesChecksum ? await outcomeOf(putPart({ ChecksumSHA256: wrong })) : "accepted";
    const { ETag } = await putPart(checksum);
    const verifiesChecksum = isVerified(refused, "accepted");
    if (!single.refusesOverwrite) return { verifiesChecksum, refusesOverwrite: false };
    await send((client, options) => client.send(new PutObjectCommand({ ...object, Body: probeBody }), options));
    const complete = new CompleteMultipartUploadCommand({
      ...target,
      IfNoneMatch: "*",
      MultipartUpload: { Parts: [{ PartNumber: 1, ETag, ...checksum }] },
    });
    const outcome = await outcomeOf(send((client, options) => client.send(complete, options)));
    return { verifiesChecksum, refusesOverwrite: outcome === "exists" };
  } finally {
    await discard(connection, target, call);
  }
}

function isVerified(wrongOne: Outcome, rightOne: Outcome): boolean {
  return wrongOne === "refused" && rightOne === "accepted";
}

type Outcome = "accepted" | "exists" | "refused";

/** What the server made of a request; a failure that says nothing of it is thrown. */
async function outcomeOf(work: Promise<unknown>): Promise<Outcome> {
  try {
    await work;
    return "accepted";
  } catch (error) {
    const { status = 0 } = refusalOf(error) ?? {};
    if (status === 409 || status === 412) return "exists";
    if (status === 400 || status === 422 || status === 501) return "refused";
    throw error;
  }
}

/** Not the shape of a key: no listing of ours shows it. */
function probeName({ configuration: { prefix } }: Connection): string {
  return `${prefix}.stowage-probe-${randomBytes(8).toString("hex")}`;
}

interface Target {
  readonly Bucket: string;
  readonly Key: string;
  readonly UploadId?: string | undefined;
}

/** Also when the call has been aborted meanwhile. */
async function discard(connection: Connection, target: Target, { log }: Call): Promise<void> {
  const call = createCall({ log });
  if (target.UploadId !== undefined) {
    const abort = new AbortMultipartUploadCommand({ ...target, UploadId: target.UploadId });
    await connection
      .send((client, options) => client.send(abort, options), requestFor("abort upload", target.Key), call)
      .catch((error: unknown) => {
        // It was completed, by a server that overwrites.
        if (!refusalOf(error)?.is("NoSuchUpload")) throw error;
      });
  }
  const remove = new DeleteObjectCommand({ Bucket: target.Bucket, Key: target.Key });
  await connection
    .send((client, options) => client.send(remove, options), requestFor("delete", target.Key), call)
    .catch((error: unknown) => {
      if (refusalOf(error)?.status !== 404) throw error;
    });
}
