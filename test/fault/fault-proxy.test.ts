import { Agent, createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type ConnectionFault,
  type FaultProxy,
  plannedConnections,
  randomConnections,
  startFaultProxy,
} from "./fault-proxy.ts";
import { createRandom } from "./random.ts";

const stored = createRandom(3).bytes(300_000);

/** A server that stores what it is sent, and gives `stored` to whoever asks. */
let received: Buffer[] = [];
const server = createServer((asked, answer) => {
  if (asked.method === "GET") return void answer.end(stored);
  buffer(asked).then(
    (bytes) => {
      received.push(bytes);
      answer.writeHead(201).end("stored");
    },
    () => {}, // the client's fault, which is what is tested
  );
});
let proxy: FaultProxy;

beforeEach(async () => {
  received = [];
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});
afterEach(async () => {
  await proxy[Symbol.asyncDispose]();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

async function start(...faults: (ConnectionFault | undefined)[]): Promise<void> {
  const plan = Object.fromEntries(faults.flatMap((fault, index) => (fault ? [[index + 1, fault]] : [])));
  const { port } = server.address() as AddressInfo;
  proxy = await startFaultProxy({ host: "127.0.0.1", port, choose: plannedConnections(plan) });
}

interface Answer {
  readonly status: number;
  readonly body: Buffer;
}

/** A request on a connection of its own. Fails as the client sees it; `got`: what came before. */
async function ask(
  method: "GET" | "PUT",
  body?: Buffer,
  headers: Record<string, string> = {},
  signal?: AbortSignal,
): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const options = {
      host: proxy.host,
      port: proxy.port,
      method,
      agent: new Agent(),
      headers,
      ...(signal ? { signal } : {}),
    };
    const asking = request(options, (answer) => {
      const pieces: Buffer[] = [];
      answer.on("data", (piece: Buffer) => pieces.push(piece));
      answer.on("end", () => resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(pieces) }));
      answer.on("error", (error) => reject(Object.assign(error, { got: Buffer.concat(pieces).length })));
    });
    asking.on("error", reject);
    if (headers.expect === undefined) asking.end(body);
    else asking.on("continue", () => asking.end(body)).flushHeaders();
  });
}

const codeOf = (asked: Promise<unknown>) =>
  asked.then(
    () => "answered",
    (error: { code?: string; name: string }) => error.code ?? error.name,
  );

test("without a fault, all passes, several requests on a connection too", async () => {
  await start();
  expect(await ask("GET")).toEqual({ status: 200, body: stored });
  expect(await ask("PUT", stored)).toEqual({ status: 201, body: Buffer.from("stored") });
  expect(received).toEqual([stored]);
  expect(await ask("PUT", stored, { expect: "100-continue" })).toMatchObject({ status: 201 });
  expect(proxy.injected).toEqual([]);
  expect(proxy.connections).toBe(3);
});

describe("resets", () => {
  test("in the answer", async () => {
    await start({ kind: "reset", direction: "down", after: 100_000 });
    expect(await codeOf(ask("GET"))).toBe("ECONNRESET");
    expect((await ask("GET")).body).toEqual(stored);
    expect(proxy.injected.map(({ connection }) => connection)).toEqual([1]);
  });

  test.each([0, 10, 200_000])("in the request, after %i bytes", async (after) => {
    await start({ kind: "reset", direction: "up", after });
    expect(["ECONNRESET", "EPIPE"]).toContain(await codeOf(ask("PUT", stored)));
    expect(received).toEqual([]);
    expect((await ask("PUT", stored)).status).toBe(201);
  });
});

describe("stalls", () => {
  test.each(["up", "down"] as const)("%s: until the client loses patience", async (direction) => {
    await start({ kind: "stall", direction, after: 1000 });
    const patience = new AbortController();
    let isAnswered = false;
    const asked = codeOf(
      direction === "up" ? ask("PUT", stored, {}, patience.signal) : ask("GET", undefined, {}, patience.signal),
    ).finally(() => {
      isAnswered = true;
    });
    await proxy.struck(1);
    // Another connection is served meanwhile, from its beginning to its end.
    expect((await ask("GET")).body).toEqual(stored);
    expect(isAnswered).toBe(false);
    patience.abort();
    expect(["ABORT_ERR", "ECONNRESET"]).toContain(await asked);
    expect(received).toEqual([]);
  });
});

test("an answer that ends early", async () => {
  await start({ kind: "truncate", after: 100_000 });
  const asked = ask("GET");
  await expect(asked).rejects.toMatchObject({ code: "ECONNRESET" }); // how Node names fewer bytes than announced
  const { got } = (await asked.catch((error: unknown) => error)) as { got: number };
  expect(got).toBeGreaterThan(90_000);
  expect(got).toBeLessThan(100_000);
});

test("an answer of the proxy: the server sees nothing", async () => {
  await start({ kind: "answer", status: 503, headers: { "retry-after": "1" } });
  expect(await ask("PUT", stored)).toEqual({ status: 503, body: Buffer.alloc(0) });
  expect(received).toEqual([]);
});

test.each([{}, { expect: "100-continue" }])(
  "another answer than the server's, which has done it: %o",
  async (headers) => {
    await start({ kind: "replace", status: 500 });
    expect(await ask("PUT", stored, headers)).toEqual({ status: 500, body: Buffer.alloc(0) });
    expect(received).toEqual([stored]);
  },
);

test("a client that goes away takes the server's side with it", async () => {
  await start();
  const leaving = new AbortController();
  const asked = codeOf(ask("GET", undefined, {}, leaving.signal));
  leaving.abort();
  expect(await asked).toBe("ABORT_ERR");
  expect((await ask("GET")).body).toEqual(stored);
});

test("nothing goes wrong while it is disarmed", async () => {
  await start({ kind: "answer", status: 503 });
  proxy.isArmed = false;
  expect((await ask("GET")).status).toBe(200);
});

test("a server that is not there", async () => {
  await start();
  await proxy[Symbol.asyncDispose]();
  proxy = await startFaultProxy({ host: "127.0.0.1", port: 1, choose: () => undefined });
  expect(await codeOf(ask("GET"))).toBe("ECONNRESET");
});

test("the same seed gives the same faults, of each kind", () => {
  const drawn = (seed: number) => {
    const choose = randomConnections({
      seed,
      rate: 0.5,
      bytesMax: 1000,
      kinds: ["reset", "stall", "truncate", "answer", "replace"],
    });
    return Array.from({ length: 200 }, (_, index) => choose(index + 1));
  };
  expect(drawn(5)).toEqual(drawn(5));
  expect(drawn(5)).not.toEqual(drawn(6));
  expect(new Set(drawn(5).map((fault) => fault?.kind)).size).toBe(6);
});

test("random faults over many requests: each is answered or fails, none hangs", async () => {
  const { port } = server.address() as AddressInfo;
  proxy = await startFaultProxy({
    host: "127.0.0.1",
    port,
    choose: randomConnections({ seed: 11, rate: 0.5, bytesMax: 300_000 }),
  });
  let whole = 0;
  for (let round = 0; round < 60; round++) {
    const answer = await ask(round % 2 ? "GET" : "PUT", round % 2 ? undefined : stored).catch(() => undefined);
    if (round % 2 && answer?.status === 200) expect(answer.body).toEqual(stored);
    if (answer?.status === 200 || answer?.status === 201) whole++;
  }
  for (const bytes of received) expect(bytes).toEqual(stored);
  expect(whole).toBeGreaterThan(20);
  expect(proxy.injected.length).toBeGreaterThan(15);
});
