import { z } from "zod";
import type { Call } from "../../../runtime/index.ts";
import type { SwiftClient } from "./client.ts";
import { type Attempt, failed } from "./failure.ts";
import { discard, readJson } from "./transport.ts";

/** What a server says of itself. */
export interface ServerLimits {
  /** The largest object that is not segmented. */
  readonly objectBytesMax: number;
  /** In one manifest; 0 where the server has no static large objects. */
  readonly segmentsMax: number;
  /** In one answer of a listing. */
  readonly listedMax: number;
}

const objectBytesDefault = 5 * 1024 ** 3;
const listedDefault = 1000;
const count = z.int().min(1);
const information = z.object({
  swift: z
    .object({ max_file_size: count.catch(objectBytesDefault), container_listing_limit: count.catch(listedDefault) })
    .catch({ max_file_size: objectBytesDefault, container_listing_limit: listedDefault }),
  slo: z.object({ max_manifest_segments: count }).optional().catch(undefined),
});

const answerBytesMax = 1024 * 1024;

/**
 * Asks the server for its limits. One that keeps them to itself counts as having Swift's own defaults, and no segments: a put can't find out in
 * time that they don't work.
 * @see https://docs.openstack.org/swift/latest/api/discoverability.html
 */
export async function readLimits(client: SwiftClient, attempt: Attempt, call: Call): Promise<ServerLimits> {
  const answer = await client.information(attempt, call);
  let found: unknown = {};
  if (answer.statusCode === 200) found = await readJson(answer, answerBytesMax, attempt, call);
  else await discard(answer, call);
  const { swift, slo } = parse(found, attempt);
  return {
    objectBytesMax: swift.max_file_size,
    segmentsMax: slo?.max_manifest_segments ?? 0,
    listedMax: swift.container_listing_limit,
  };
}

function parse(found: unknown, attempt: Attempt): z.infer<typeof information> {
  const { success, data } = information.safeParse(found);
  if (!success) throw failed(attempt, "what the server says of itself is not understood");
  return data;
}
