import type { LookupAddress } from "node:dns";
import { lookup } from "node:dns/promises";
import { type Clock, systemClock } from "../../runtime/index.ts";
import { type AddressClass, classifyAddress } from "./addresses.ts";
import { HostWaits } from "./host-waits.ts";

/** What decides how requests behave apart from what the user asked for: constants in the product, arguments in tests. */
export interface RegistrySettings {
  readonly clock: Clock;
  /** Uniform in [0, 1), for jitter. */
  readonly random: () => number;
  readonly resolveHost: (hostname: string) => Promise<readonly LookupAddress[]>;
  readonly classify: (address: string) => AddressClass;
  readonly connectTimeoutMs: number;
  /** Until the headers of an answer are complete. */
  readonly headersTimeoutMs: number;
  /** Between two pieces of a body. */
  readonly stallTimeoutMs: number;
  /** For the whole of a manifest, a configuration or a token. */
  readonly documentTimeoutMs: number;
  /** Tries of one request, the first included, or of a blob without a byte between them. */
  readonly attemptsMax: number;
  /** Tries of a blob, whatever came between them; each MiB that came earns one more. */
  readonly attemptsInAllMax: number;
  /** One for the whole process. */
  readonly hostWaits: HostWaits;
}

export const defaultSettings: RegistrySettings = {
  clock: systemClock,
  random: Math.random,
  resolveHost: (hostname) => lookup(hostname, { all: true }),
  classify: classifyAddress,
  connectTimeoutMs: 15_000,
  headersTimeoutMs: 60_000,
  stallTimeoutMs: 60_000,
  documentTimeoutMs: 180_000,
  attemptsMax: 5,
  attemptsInAllMax: 30,
  hostWaits: new HostWaits(),
};
