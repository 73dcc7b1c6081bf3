import { DeleteObjectsCommand } from "@aws-sdk/client-s3";
import type { Call } from "../../../runtime/index.ts";
import type { PhysicalKey } from "../../driver.ts";
import type { Connection } from "./connection.ts";
import { keyOf, objectOf, requestFor, withContentMd5 } from "./requests.ts";

/** S3's own limit. */
const objectsMax = 1000;

/** Deletes objects, many in one request; returns those of which the server says that they are gone. */
export async function deleteMany(
  connection: Connection,
  keys: readonly PhysicalKey[],
  call: Call,
): Promise<ReadonlySet<PhysicalKey>> {
  const { bucket, prefix } = connection.configuration;
  const wanted = new Set(keys);
  const gone = new Set<PhysicalKey>();
  for (let at = 0; at < keys.length; at += objectsMax) {
    const Objects = keys.slice(at, at + objectsMax).map((key) => ({ Key: objectOf(prefix, key) }));
    // Not quiet: what an answer does not name may have been left out by a server that knows half of this.
    const command = new DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects, Quiet: false } });
    const answer = await connection.send(
      (client, options) => client.send(withContentMd5(command), options),
      requestFor("delete"),
      call,
    );
    for (const { Key = "" } of answer.Deleted ?? []) {
      const key = keyOf(prefix, Key);
      if (key !== undefined && wanted.has(key)) gone.add(key);
    }
  }
  return gone;
}
