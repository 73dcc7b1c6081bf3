import type { Call } from "../../../runtime/index.ts";
import { SwiftClient } from "./client.ts";
import { loginOf, type SwiftConfig } from "./config.ts";
import { type Attempt, containerMissing } from "./failure.ts";
import { readFileUpTo } from "./login.ts";
import { SwiftDriver } from "./swift-driver.ts";
import { discard, Transport } from "./transport.ts";

const certificatesBytesMax = 1024 * 1024;

/** Logs in and looks for the container, which it makes where the configuration asks for that. */
export async function openSwift(config: SwiftConfig, call: Call): Promise<SwiftDriver> {
  const { container, os_cacert, insecure } = config;
  const login = loginOf(config);
  const ca = os_cacert === undefined ? undefined : await readFileUpTo(os_cacert, certificatesBytesMax, "os_cacert");
  await using opening = new AsyncDisposableStack();
  const transport = opening.use(new Transport({ ca, insecure }));
  const client = opening.use(
    new SwiftClient({ container, login, choice: config, token: config.os_auth_token }, transport),
  );
  const attempt: Attempt = { operation: "open", resource: container, container };
  const found = await client.request({ method: "HEAD", accepts: [200, 204, 404] }, attempt, call);
  await discard(found, call);
  if (found.statusCode === 404) {
    if (!config.create_container) throw containerMissing(attempt);
    await discard(await client.request({ method: "PUT", accepts: [201, 202] }, attempt, call), call);
  }
  opening.move();
  return new SwiftDriver(client, {
    prefix: config.anchore_key_prefix,
    segmentBytes: config.segment_size_mbytes * 1024 * 1024,
  });
}
