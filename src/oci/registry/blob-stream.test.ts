import { randomBytes } from "node:crypto";
import type { Readable } from "node:stream";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { failureOf } from "../../../test/conformance/failure.ts";
import { startFaultProxy } from "../../../test/fault/fault-proxy.ts";
import { ManualClock } from "../../../test/fault/manual-clock.ts";
import { createRandom } from "../../../test/fault/random.ts";
import { buildImage, sha256 } from "../../../test/images/builder.ts";
import {
  type Fault,
  type RecordedRequest,
  type RegistryOptions,
  startRegistry,
  type TestRegistry,
} from "../../../test/registry/registry-server.ts";
import { testSourceOptions } from "../../../test/registry/source-options.ts";
import { StowageError } from "../../errors/index.ts";
import { type Call, createCall } from "../../runtime/index.ts";
import { parseReference } from "../reference.ts";
import type { Descriptor, ImageSource } from "../types.ts";
import { HostWaits } from "./host-waits.ts";
import { defaultSettings, type RegistrySettings } from "./settings.ts";
import { openRegistry } from "./source.ts";

const call = createCall();
const MiB = 1024 * 1024;
const content = randomBytes(MiB);
const image = buildImage({ layers: [{ content, compression: "none" }] });
const layer = image.layers[0]?.descriptor as unknown as Descriptor;
const other = randomBytes(MiB);

/** A clock that says when so many wait for it. */
class WatchedClock extends ManualClock {
  readonly #watchers = new Set<() => void>();

  override sleep(ms: number, sleeping: Call): Promise<void> {
    const slept = super.sleep(ms, sleeping);
    for (const watcher of this.#watchers) watcher();
    return slept;
  }

  async untilWaiting(count: number): Promise<void> {
    if (this.waiting >= count) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const watcher = () => {
      if (this.waiting >= count) resolve();
    };
    this.#watchers.add(watcher);
    await promise;
    this.#watchers.delete(watcher);
  }
}

interface Setup extends AsyncDisposable {
  readonly registry: TestRegistry;
  readonly source: ImageSource;
  readonly clock: WatchedClock;
  readonly told: string[];
  /** What `open` gives, read to its end, whatever has to be waited for. */
  read(descriptor?: Descriptor): Promise<string>;
  ranges(): (string | undefined)[];
}

function sourceOf(host: string, settings: Partial<RegistrySettings> = {}, insecure = false) {
  const clock = new WatchedClock();
  const options = testSourceOptions({ insecure });
  const all = { ...defaultSettings, clock, random: () => 0.5, hostWaits: new HostWaits(), ...settings };
  return { clock, told: options.told, source: openRegistry(parseReference(`${host}/team/app:1`), options, all) };
}

async function digestOf(stream: Promise<Readable>): Promise<string> {
  return sha256(Buffer.concat((await (await stream).toArray()) as Buffer[]));
}

async function setUp(
  parts: RegistryOptions & {
    readonly faults?: readonly (Fault | "none")[];
    readonly repeat?: boolean;
    readonly settings?: Partial<RegistrySettings>;
    readonly host?: (registry: TestRegistry) => string;
  } = {},
): Promise<Setup> {
  const registry = await startRegistry(parts);
  registry.push("team/app", image, "1");
  if (parts.faults) registry.fail({ path: "/blobs/", faults: parts.faults, repeat: parts.repeat ?? false });
  const host = parts.host?.(registry) ?? registry.host;
  const { clock, told, source } = sourceOf(host, parts.settings, parts.host !== undefined);
  return {
    registry,
    source,
    clock,
    told,
    read: (descriptor = layer) => clock.runUntil(digestOf(source.layers.open(descriptor, call))),
    ranges: () => registry.seen("/blobs/").map((request) => request.headers.range),
    async [Symbol.asyncDispose]() {
      await source[Symbol.asyncDispose]();
      await registry[Symbol.asyncDispose]();
    },
  };
}

const drop = (bytes: number): Fault => ({ dropAfterBytes: bytes });

/** Replaces the blob's bytes before the n-th request for it. */
function changeBefore(requestNumber: number, registry: () => TestRegistry, bytes: Buffer) {
  let count = 0;
  return (request: RecordedRequest) => {
    if (request.path.includes("/blobs/") && ++count === requestNumber) registry().blobs.set(layer.digest, bytes);
    return undefined;
  };
}

describe("a connection that drops", () => {
  it("is taken up again at the byte reached", async () => {
    await using setup = await setUp({ faults: [drop(300_000), drop(200_000)] });
    expect(await setup.read()).toBe(layer.digest);
    const [first, second, third] = setup.ranges().map((range) => Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1]));
    expect(first).toBeNaN();
    expect(second).toBeGreaterThan(0);
    expect(second).toBeLessThanOrEqual(300_000);
    expect(third).toBeGreaterThanOrEqual(second ?? 0);
    expect(setup.registry.seen("/blobs/")[1]?.headers["if-range"]).toBe(`"${layer.digest}"`);
    expect(setup.told).toEqual(Array(2).fill(`${setup.registry.host} dropped the connection, trying again in 1 s`));
  });

  it("is read from its start where there are no ranges, and what was handed out is skipped", async () => {
    await using setup = await setUp({ ranges: false, faults: [drop(300_000), drop(100_000), drop(700_000)] });
    expect(await setup.read()).toBe(layer.digest);
    expect(setup.ranges()).toHaveLength(4);
  });

  it("may drop anywhere, and gives the same bytes", async () => {
    const fault = fc.oneof(
      fc.nat(content.length).map(drop),
      fc.constant<Fault>({ drop: "before-headers" }),
      fc.constantFrom(503, 429).map((status): Fault => ({ status, headers: { "retry-after": "3" } })),
    );
    await fc.assert(
      // Without ranges nothing but the attempts in a row is promised: four may fail.
      fc.asyncProperty(fc.array(fault, { maxLength: 4 }), fc.boolean(), async (faults, ranges) => {
        await using setup = await setUp({ faults, ranges });
        expect(await setup.read()).toBe(layer.digest);
      }),
      { numRuns: 40 },
    );
  });

  it("may stall", async () => {
    await using setup = await setUp({ faults: [{ stallAfterBytes: 400_000 }], settings: { stallTimeoutMs: 100 } });
    expect(await setup.read()).toBe(layer.digest);
    expect(setup.told[0]).toBe(`${setup.registry.host} did not answer in time, trying again in 1 s`);
  });

  it("may end as if all were there", async () => {
    const bytes = image.blobs.get(layer.digest) as Buffer;
    await using setup = await setUp({ faults: [{ replaceBody: bytes.subarray(0, 5000), chunked: true }] });
    expect(await setup.read()).toBe(layer.digest);
    expect(setup.ranges()).toEqual([undefined, "bytes=5000-"]);
  });

  it("may leave a registry that is away for a while", async () => {
    let lookups = 0;
    const resolveHost = async () => {
      lookups++;
      // The first two find out whether it speaks TLS.
      if (lookups > 2 && lookups < 5) throw Object.assign(new Error("getaddrinfo ENOTFOUND"), { code: "ENOTFOUND" });
      return [{ address: "127.0.0.1", family: 4 }];
    };
    await using setup = await setUp({
      faults: [drop(1000)],
      settings: { resolveHost },
      host: (registry) => `registry.test:${registry.port}`,
    });
    expect(await setup.read()).toBe(layer.digest);
    expect(setup.told[1]).toContain("can't be reached, trying again in 2 s");
  });

  it("is not taken up for ever, though a byte comes each time", async () => {
    await using setup = await setUp({ faults: [drop(1)], repeat: true });
    const error = await failureOf(setup.read());
    expect(error.code).toBe("REGISTRY_UNREACHABLE");
    expect(error.details.reason).toMatch(/broke after \d+ of 1048576 bytes, at attempt 30/);
    expect(setup.ranges()).toHaveLength(30);
  });

  it("is taken up more often the more has come", async () => {
    const big = buildImage({ layers: [{ content: randomBytes(7 * MiB), compression: "none" }] });
    const descriptor = big.layers[0]?.descriptor as unknown as Descriptor;
    await using setup = await setUp({ faults: Array(5).fill(drop(1.3 * MiB)), settings: { attemptsInAllMax: 3 } });
    setup.registry.push("team/app", big);
    expect(await setup.read(descriptor)).toBe(descriptor.digest);
    expect(setup.ranges()).toHaveLength(6);
  });

  it("earns nothing by what it sends once more", async () => {
    const settings = { attemptsInAllMax: 3 };
    const big = buildImage({ layers: [{ content: randomBytes(7 * MiB), compression: "none" }] });
    const descriptor = big.layers[0]?.descriptor as unknown as Descriptor;
    // Each time a MiB more comes, all of them over again.
    const faults = [1, 2, 3, 4, 5, 6, 7].map((count) => drop(count * 1.2 * MiB));
    await using setup = await setUp({ ranges: false, faults, settings });
    setup.registry.push("team/app", big);
    expect((await failureOf(setup.read(descriptor))).code).toBe("REGISTRY_UNREACHABLE");
    expect(setup.ranges().length).toBeLessThanOrEqual(5);
  });

  it("is not taken up for a reader who has gone", async () => {
    await using setup = await setUp({ faults: [drop(10)] });
    const stream = await setup.source.layers.open(layer, call);
    await setup.clock.untilWaiting(1);
    stream.destroy();
    expect(stream.destroyed).toBe(true);
    await setup.clock.advance(60_000);
    expect(setup.clock.waiting).toBe(0);
    expect(setup.ranges()).toHaveLength(1);
  });

  it("is not taken up when the call is aborted meanwhile", async () => {
    await using setup = await setUp({ faults: [drop(10)] });
    const controller = new AbortController();
    const reading = digestOf(setup.source.layers.open(layer, createCall({ signal: controller.signal })));
    await setup.clock.untilWaiting(1);
    controller.abort();
    expect((await failureOf(reading)).code).toBe("INPUT_INTERRUPTED");
    expect(setup.ranges()).toHaveLength(1);
  });

  it("says what the registry says when it refuses to go on", async () => {
    await using setup = await setUp({ faults: [drop(10), { status: 403 }] });
    expect((await failureOf(setup.read())).code).toBe("ACCESS_DENIED");
    await using gone = await setUp({ faults: [drop(10), { status: 404 }] });
    expect((await failureOf(gone.read())).code).toBe("IMAGE_BLOB_MISSING");
  });
});

describe("going on through a redirect", () => {
  it("asks the registry for a new link each time, and sends the storage no credentials", async () => {
    const used = new Set<string>();
    await using storage = await startRegistry({
      // A link is good for one request.
      intercept: ({ path }) => (used.has(path) ? { status: 403, body: "Request has expired" } : void used.add(path)),
    });
    storage.push("any", image);
    storage.fail({ path: "/blobs/", faults: [drop(1000), drop(500_000)] });
    let links = 0;
    await using setup = await setUp({
      auth: { kind: "bearer", anonymous: true },
      redirectBlobs: (digest) => `${storage.url}/v2/any/blobs/${digest}?signature=${++links}`,
    });
    expect(await setup.read()).toBe(layer.digest);
    expect(storage.requests.map((request) => request.headers.range !== undefined)).toEqual([false, true, true]);
    for (const request of storage.requests) expect(request.headers.authorization).toBeUndefined();
  });

  it("logs in again where the token has run out", async () => {
    await using setup = await setUp({ auth: { kind: "bearer", anonymous: true } });
    setup.registry.fail({ path: "/blobs/", faults: ["none", drop(1000)] });
    const stream = await setup.source.layers.open(layer, call);
    setup.registry.tokens.clear();
    expect(await setup.clock.runUntil(digestOf(Promise.resolve(stream)))).toBe(layer.digest);
    expect(setup.registry.seen("/token")).toHaveLength(2);
  });
});

describe("a registry that lies about ranges", () => {
  const size = layer.size;
  const whole = image.blobs.get(layer.digest) as Buffer;
  const saying = (range: string): Fault => ({ replaceHeaders: { "content-range": range } });

  it.each([
    ["another start", saying(`bytes 0-${size - 1}/${size}`)],
    ["another end", saying(`bytes 10-${size - 2}/${size}`)],
    ["another total", saying(`bytes 10-${size - 1}/${size + 1}`)],
    ["no unit that is known", saying("pages 1-2/3")],
    ["several ranges", { status: 206, headers: { "content-type": "multipart/byteranges; boundary=x" }, body: "--x" }],
    ["a range of the whole's length", { replaceBody: whole }],
    ["a range that is too short", { replaceBody: Buffer.alloc(10) }],
    ["a range of something else", { replaceHeaders: { etag: '"another"' } }],
    ["no range at all", { status: 416 }],
  ] satisfies [string, Fault][])("that has %s is read from the start again", async (_, fault) => {
    // Ten bytes come for sure, as a proper end follows them.
    const begun: Fault = { replaceBody: whole.subarray(0, 10), chunked: true };
    await using setup = await setUp({ faults: [begun, fault] });
    expect(await setup.read()).toBe(layer.digest);
    expect(setup.ranges()).toEqual([undefined, "bytes=10-", undefined]);
    expect(setup.told.filter((text) => text.endsWith(`beginning layer ${layer.digest} again`))).toHaveLength(1);
  });

  it("goes on where a range ends early", async () => {
    const begun: Fault = { replaceBody: whole.subarray(0, 10), chunked: true };
    await using setup = await setUp({ faults: [begun, { replaceBody: whole.subarray(10, 20), chunked: true }] });
    expect(await setup.read()).toBe(layer.digest);
    expect(setup.ranges()).toEqual([undefined, "bytes=10-", "bytes=20-"]);
  });

  it("names a range that is longer than it says", async () => {
    const begun: Fault = { replaceBody: whole.subarray(0, 10), chunked: true };
    await using setup = await setUp({ faults: [begun, { replaceBody: whole, chunked: true }] });
    const error = await failureOf(setup.read());
    expect(error.code).toBe("REGISTRY_ANSWER_INVALID");
    expect(error.details.reason).toBe(`layer ${layer.digest} is longer than the range that was announced`);
  });

  it("is not believed a range that nobody asked for", async () => {
    await using setup = await setUp({
      faults: [{ status: 206, headers: { "content-range": "bytes 0-1/2" }, body: "ab" }],
    });
    expect((await failureOf(setup.read())).code).toBe("REGISTRY_ANSWER_INVALID");
  });

  it("can be read in one piece by a reader who found the digest wrong, once", async () => {
    const begun: Fault = { replaceBody: whole.subarray(0, 10), chunked: true };
    const wrong: Fault = { replaceBody: Buffer.alloc(size - 10), chunked: true };
    await using setup = await setUp({ faults: [begun, wrong, begun] });
    expect(await setup.source.layers.recheck(layer, call)).toBe(false);
    expect(await setup.read()).not.toBe(layer.digest);
    expect(await setup.source.layers.recheck(layer, call)).toBe(true);
    expect(await setup.read()).toBe(layer.digest);
    expect(setup.ranges()).toEqual([undefined, "bytes=10-", undefined, undefined]);
    expect(await setup.source.layers.recheck(layer, call)).toBe(false);
  });

  it("is not read once more where it was the line that failed", async () => {
    const begun: Fault = { replaceBody: whole.subarray(0, 10), chunked: true };
    await using setup = await setUp({ faults: [begun, drop(1000), { drop: "before-headers" }], repeat: true });
    expect((await failureOf(setup.read())).code).toBe("REGISTRY_UNREACHABLE");
    expect(setup.ranges()[1]).toBe("bytes=10-");
    expect(await setup.source.layers.recheck(layer, call)).toBe(false);
  });
});

describe("a blob that changes between two requests", () => {
  it.each([
    ["by the ETag", {}],
    ["by the beginning that is skipped", { ranges: false }],
  ] satisfies [string, RegistryOptions][])("is found out %s", async (_, options) => {
    let registry: TestRegistry | undefined;
    const intercept = changeBefore(2, () => registry as TestRegistry, other);
    await using setup = await setUp({ ...options, intercept, faults: [drop(200_000)] });
    registry = setup.registry;
    const error = await failureOf(setup.read());
    expect(error.code).toBe("REGISTRY_ANSWER_INVALID");
    expect(error.details.reason).toContain("has changed since its beginning was read");
  });

  it("is found out by its size", async () => {
    let registry: TestRegistry | undefined;
    const intercept = changeBefore(2, () => registry as TestRegistry, other.subarray(1));
    await using setup = await setUp({ intercept, faults: [drop(200_000)] });
    registry = setup.registry;
    expect((await failureOf(setup.read())).code).toBe("IMAGE_SIZE_MISMATCH");
  });
});

const seed = randomBytes(4).readUInt32BE();

it(`ends in bytes whose digest tells, or in an error that is clear, whatever a registry does (seed ${seed})`, async () => {
  const codes = ["REGISTRY_ANSWER_INVALID", "REGISTRY_UNREACHABLE", "IMAGE_SIZE_MISMATCH", "REGISTRY_UNAVAILABLE"];
  const whole = image.blobs.get(layer.digest) as Buffer;
  const random = createRandom(seed);
  const fault = (): Fault => {
    const at = random.integer(layer.size);
    const body = random.pick([whole, other, whole.subarray(at), whole.subarray(0, at), Buffer.alloc(0)]);
    return random.pick<Fault>([
      drop(at),
      { replaceBody: body, chunked: random.next() < 0.8 },
      { replaceHeaders: { "content-range": `bytes ${at}-${layer.size - 1}/${layer.size}` } },
      { status: random.pick([200, 206, 416, 503]), headers: { "content-range": `bytes */${at}` } },
    ]);
  };
  let complete = 0;
  for (let run = 0; run < 60; run++) {
    const faults = [drop(random.integer(layer.size)), ...Array.from({ length: random.integer(6) }, fault)];
    await using setup = await setUp({ faults, ranges: random.next() < 0.7 });
    try {
      // A digest that is wrong is found by the reader, who may then ask for it in one piece.
      let digest = await setup.read();
      const isWrong = digest !== layer.digest;
      if (isWrong) {
        expect(await setup.source.layers.recheck(layer, call), `seed ${seed}, run ${run}`).toBe(true);
        setup.registry.clearFaults();
        digest = await setup.read();
      }
      expect(digest, `seed ${seed}, run ${run}`).toBe(layer.digest);
      complete++;
    } catch (error) {
      if (!(error instanceof StowageError)) throw error;
      const { code } = error;
      expect(codes, `seed ${seed}, run ${run}`).toContain(code);
    }
  }
  expect(complete, `seed ${seed}`).toBeGreaterThan(0);
});

describe("a host that wants to be left alone", () => {
  const many = buildImage({ layers: [1, 2, 3, 4].map((seed) => [{ path: "f", content: `${seed}` }]) });
  const descriptors = many.layers.map(({ descriptor }) => descriptor as unknown as Descriptor);
  const readAll = (setup: Setup) =>
    Promise.all(descriptors.map((descriptor) => digestOf(setup.source.layers.open(descriptor, call))));
  const digests = descriptors.map(({ digest }) => digest);

  it("is asked nothing by others either, and told of once", async () => {
    await using setup = await setUp({ faults: [{ status: 429, headers: { "retry-after": "30" } }] });
    setup.registry.push("team/app", many);
    const [first, ...others] = descriptors;
    const reading = [digestOf(setup.source.layers.open(first as Descriptor, call))];
    await setup.clock.untilWaiting(1);
    reading.push(...others.map((descriptor) => digestOf(setup.source.layers.open(descriptor, call))));
    await setup.clock.untilWaiting(4);
    expect(setup.registry.requests).toHaveLength(1);
    await setup.clock.advance(29_999);
    expect(setup.registry.requests).toHaveLength(1);
    expect(await setup.clock.runUntil(Promise.all(reading))).toEqual(digests);
    expect(setup.registry.requests).toHaveLength(5);
    expect(setup.told).toEqual([`${setup.registry.host} answered 429, trying again in 30 s`]);
  });

  it("tells several requests, and is told of once", async () => {
    const fault: Fault = { status: 429, headers: { "retry-after": "30" } };
    await using setup = await setUp({ faults: [fault, fault, fault, fault] });
    setup.registry.push("team/app", many);
    const reading = readAll(setup);
    await setup.clock.untilWaiting(4);
    expect(await setup.clock.runUntil(reading)).toEqual(digests);
    expect(setup.told).toEqual([`${setup.registry.host} answered 429, trying again in 30 s`]);
  });

  it("drops several connections, and is told of once", async () => {
    await using setup = await setUp({ faults: Array(4).fill({ drop: "before-headers" }) });
    setup.registry.push("team/app", many);
    const reading = readAll(setup);
    await setup.clock.untilWaiting(4);
    expect(await setup.clock.runUntil(reading)).toEqual(digests);
    expect(setup.told).toEqual([`${setup.registry.host} dropped the connection, trying again in 1 s`]);
  });

  it("makes nobody wait who is sent to other hosts, nor by a time without end", async () => {
    const hostWaits = new HostWaits();
    await using storage = await startRegistry();
    storage.push("any", image);
    storage.fail({ path: "/blobs/", faults: [{ status: 503, headers: { "retry-after": "100" } }] });
    const redirectBlobs = (digest: string) => `${storage.url}/v2/any/blobs/${digest}`;
    await using told = await setUp({ redirectBlobs, settings: { hostWaits } });
    await using free = await setUp({ redirectBlobs, settings: { hostWaits } });
    const reading = digestOf(told.source.layers.open(layer, call));
    await told.clock.untilWaiting(1);
    // Another registry that leads to the same storage, and the registry itself.
    expect(await digestOf(free.source.layers.open(layer, call))).toBe(layer.digest);
    expect(await told.source.layers.has(layer, call)).toBe(true);
    expect(await told.clock.runUntil(reading)).toBe(layer.digest);

    await using endless = await setUp({ faults: [{ status: 429, headers: { "retry-after": "999999999" } }] });
    const error = await failureOf(endless.source.layers.open(layer, call));
    expect(error.code).toBe("REGISTRY_UNAVAILABLE");
    expect(error.hint).toBe("try again in 16666667 minutes, as it asks for");
    expect(await digestOf(endless.source.layers.open(layer, call))).toBe(layer.digest);
    expect(endless.clock.sleeps).toEqual([]);
  });

  it("is asked in the end, though others are told to wait again and again", async () => {
    const clock = new ManualClock();
    const hostWaits = new HostWaits();
    hostWaits.begin("registry", "host", 100_000, clock);
    const waited = hostWaits.end("registry", "host", 120_000, { clock, random: () => 0 }, call);
    await clock.advance(50_000);
    hostWaits.begin("registry", "host", 100_000, clock);
    await clock.advance(69_999);
    expect(clock.waiting).toBe(1);
    await clock.advance(1);
    await waited;
    expect(clock.sleeps).toEqual([100_000, 20_000]);
  });
});

// STOWAGE_TEST_REGISTRY=host:port names a real registry whose repository `test` holds one tag at least.
const real = process.env.STOWAGE_TEST_REGISTRY;
describe("a real registry behind a bad line", () => {
  const isRequired = (process.env.STOWAGE_TEST_REQUIRE ?? "").split(",").includes("registry");
  it.runIf(real === undefined && isRequired)("is there", () => {
    throw new Error("STOWAGE_TEST_REQUIRE asks for a registry, but STOWAGE_TEST_REGISTRY is not set");
  });

  it.skipIf(real === undefined)(`gives each layer in one stream (seed ${seed})`, async () => {
    const { hostname, port } = new URL(`http://${real}`);
    const answer = await fetch(`http://${real}/v2/test/tags/list`);
    const { tags } = (await answer.json()) as { tags: string[] };
    const random = createRandom(seed);
    await using proxy = await startFaultProxy({
      host: hostname,
      port: Number(port),
      choose: () => undefined,
    });
    const clock = new ManualClock();
    // A reset may take with it all that came before, so more may fail in a row than the product allows.
    const settings = { ...defaultSettings, clock, random: () => 0.5, hostWaits: new HostWaits(), attemptsMax: 10 };
    const reference = parseReference(`127.0.0.1:${proxy.port}/test:${tags[0]}`);
    const open = () => openRegistry(reference, testSourceOptions(), settings);
    await using first = open();
    const { layers } = await first.resolve(undefined, call);
    for (const { descriptor } of layers) {
      // One that has kept no connection. Each connection is cut within the first half of the layer, where it has one.
      let cuts = 6;
      proxy.choose = () => {
        if (cuts-- <= 0) return undefined;
        const after = 1000 + random.integer(Math.ceil(descriptor.size / 2));
        return { kind: random.pick(["reset", "truncate"] as const), direction: "down", after };
      };
      await using source = open();
      const digest = await clock.runUntil(digestOf(source.layers.open(descriptor, call)));
      expect(digest, `seed ${seed}`).toBe(descriptor.digest);
    }
    expect(proxy.injected.length, `seed ${seed}`).toBeGreaterThan(0);
  });
});
