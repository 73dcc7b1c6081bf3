import { randomBytes } from "node:crypto";
import { Secret } from "../../src/config/index.ts";
import { SwiftClient } from "../../src/objects/drivers/swift/client.ts";
import type { Attempt } from "../../src/objects/drivers/swift/failure.ts";
import { SwiftDriver } from "../../src/objects/drivers/swift/swift-driver.ts";
import { discard, readJson, Transport } from "../../src/objects/drivers/swift/transport.ts";
import { createCall } from "../../src/runtime/index.ts";
import type { DriverUnderTest } from "../conformance/driver-suite.ts";

/** A Swift with its login of version 1. */
export interface SwiftServer {
  readonly auth: string;
  readonly user: string;
  readonly key: string;
}

const call = createCall();
const pageSize = 100;

/** What `STOWAGE_TEST_SWIFT` says. */
export function parseServer(text: string): SwiftServer {
  const { auth, user, key } = JSON.parse(text) as Record<string, unknown>;
  if (typeof auth !== "string" || typeof user !== "string" || typeof key !== "string") {
    throw new Error("STOWAGE_TEST_SWIFT must be JSON with auth, user and key");
  }
  return { auth, user, key };
}

export interface SwiftUnderTest extends DriverUnderTest {
  readonly driver: SwiftDriver;
  /** Past the driver: an object of any name. */
  store(name: string, bytes: Buffer): Promise<void>;
  remove(name: string): Promise<void>;
}

/** A driver on a new container, whose name has all that names may have. Its end takes the container away. */
export async function openContainer(
  { auth, user, key }: SwiftServer,
  { prefix = "", segmentBytes = 1024 ** 3 }: { prefix?: string; segmentBytes?: number },
): Promise<SwiftUnderTest> {
  const container = `stowage test é#?%25 ${randomBytes(6).toString("hex")}`;
  const client = new SwiftClient(
    {
      container,
      login: { version: 1, authUrl: auth, user, key: { value: new Secret(key) } },
      choice: { os_region_name: undefined, os_endpoint_type: "public", os_storage_url: undefined },
      token: undefined,
    },
    new Transport({ ca: undefined, insecure: false }),
  );
  const attempt: Attempt = { operation: "open", resource: container, container };
  await discard(await client.request({ method: "PUT", accepts: [201] }, attempt, call), call);
  const names = async () => {
    const query = { format: "json", limit: "10000" };
    const answer = await client.request({ method: "GET", query, accepts: [200] }, attempt, call);
    return ((await readJson(answer, 16 * 1024 * 1024, attempt, call)) as { name: string }[]).map(({ name }) => name);
  };
  const remove = async (name: string) => {
    await discard(await client.request({ method: "DELETE", name, accepts: [204, 404] }, attempt, call), call);
  };
  const store = async (name: string, bytes: Buffer) => {
    await discard(
      await client.request({ method: "PUT", name, body: () => bytes, accepts: [201] }, attempt, call),
      call,
    );
  };
  const driver = new SwiftDriver(client, { prefix, segmentBytes, pageSize });
  return {
    driver,
    remove,
    store,
    async litter(partOf) {
      const part = `${prefix}segments/${partOf}/0123/00000001`;
      const names = [part, `${prefix}a.bin`, `${prefix}other/x`, `${prefix}${partOf}x`, `${prefix}segments/x`];
      for (const [index, name] of names.entries()) await store(name, Buffer.alloc(100 + index));
      return {
        foreign: names.map((name, index) => ({ name, sizeBytes: 100 + index, ...(name === part ? { partOf } : {}) })),
        async [Symbol.asyncDispose]() {
          for (const name of names) await remove(name);
        },
      };
    },
    // Swift sends smaller segments at one a second.
    chunkBytes: 1024 * 1024,
    severalPages: 2 * pageSize + 10,
    remains: names,
    async [Symbol.asyncDispose]() {
      for (const name of await names()) await remove(name);
      await discard(await client.request({ method: "DELETE", accepts: [204, 404] }, attempt, call), call);
      await driver[Symbol.asyncDispose]();
    },
  };
}
