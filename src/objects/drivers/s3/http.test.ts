import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { Http, type HttpRequest, Silence } from "./http.ts";

const MiB = 1024 * 1024;
const never = new AbortController().signal;
let answer: (request: IncomingMessage, response: ServerResponse) => void;
let origin: string;
let http: Http;
let connections: number;

beforeEach(async () => {
  const server = createServer((request, response) => answer(request, response));
  connections = 0;
  server.on("connection", () => {
    connections++;
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  http = new Http(undefined);
  return async () => {
    await http.destroy();
    server.closeAllConnections();
    server.close();
  };
});

function ask(more: Partial<HttpRequest> = {}, signal = never, waitMs?: number) {
  return http.exchange(Promise.resolve({ origin, method: "GET", path: "/", headers: {}, ...more }), signal, waitMs);
}

describe("an answer", () => {
  test("that is short comes as a whole, and its connection is kept", async () => {
    const bytes = Buffer.alloc(MiB, "short");
    answer = (_, response) => response.setHeader("content-length", bytes.length).end(bytes);
    for (let count = 0; count < 9; count++) {
      const { body, statusCode } = await ask();
      expect(statusCode).toBe(200);
      expect(bytes.equals(body as Buffer)).toBe(true);
    }
    // It is free again a moment after its answer.
    expect(connections).toBeLessThanOrEqual(2);
  });

  test.each([
    ["long", MiB + 1, true, false],
    ["of unknown length", 10, false, false],
    ["one that has to be a stream", 10, true, true],
  ])("that is %s comes as a stream", async (_, length, isTold, isStreamed) => {
    const bytes = Buffer.alloc(length, "stream");
    answer = (_request, response) => {
      if (isTold) response.setHeader("content-length", length);
      response.write(bytes.subarray(0, 5));
      response.end(bytes.subarray(5));
    };
    const { body } = await ask({ isStreamed });
    expect(body).toBeInstanceOf(Readable);
    expect(bytes.equals(await buffer(body as Readable))).toBe(true);
  });

  test.each(["HEAD", "DELETE"] as const)("to %s without a body is whole at once", async (method) => {
    answer = (_, response) => {
      if (method === "HEAD") response.setHeader("content-length", 100);
      response.writeHead(method === "HEAD" ? 200 : 204).end();
    };
    expect((await ask({ method })).body).toEqual(Buffer.alloc(0));
  });

  test("that ends early is a failure, short or long", async () => {
    for (const length of [100, 2 * MiB]) {
      answer = (_, response) => {
        response.writeHead(200, { "content-length": length });
        response.write("begun", () => response.destroy());
      };
      const read = ask().then(({ body }) => (Buffer.isBuffer(body) ? body : buffer(body)));
      await expect(read).rejects.toThrow();
    }
  });
});

describe("silence", () => {
  test.each([
    ["before the answer", 0],
    ["amid a short one", 5],
  ])("%s ends it", async (_, sentBytes) => {
    const isAsked = Promise.withResolvers<void>();
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      answer = (_request, response) => {
        if (sentBytes > 0) response.writeHead(200, { "content-length": 100 }).write(Buffer.alloc(sentBytes));
        isAsked.resolve();
      };
      const failed = expect(ask({}, never, 1000)).rejects.toBeInstanceOf(Silence);
      await isAsked.promise;
      await vi.advanceTimersByTimeAsync(3000);
      await failed;
    } finally {
      vi.useRealTimers();
    }
  });
});

test.each(["while it is signed", "while it is sent", "amid its answer"])(
  "a request that is aborted %s",
  async (when) => {
    const abort = new AbortController();
    const reason = new Error("enough");
    answer = (_, response) => {
      if (when === "amid its answer") response.writeHead(200, { "content-length": 100 }).write("begun");
      abort.abort(reason);
    };
    const request: HttpRequest = { origin, method: "GET", path: "/", headers: {} };
    const signed = when === "while it is signed" ? new Promise<HttpRequest>(() => {}) : Promise.resolve(request);
    const failed = expect(http.exchange(signed, abort.signal)).rejects.toBe(reason);
    if (when === "while it is signed") abort.abort(reason);
    await failed;
  },
);

test("what can't be sent is a failure", async () => {
  await expect(ask({ path: "no path" })).rejects.toThrow();
  await expect(ask({ origin: "http://127.0.0.1:1" })).rejects.toMatchObject({ code: "ECONNREFUSED" });
  await expect(http.exchange(Promise.reject(new Error("no keys")), never)).rejects.toThrow("no keys");
});

test("for the SDK: the query as it was signed, and every body a stream", async () => {
  const asked = Promise.withResolvers<string | undefined>();
  answer = (request, response) => {
    asked.resolve(request.url);
    response.setHeader("content-length", 2).end("ok");
  };
  const { hostname, port } = new URL(origin);
  const { response } = await http.handle({
    protocol: "http:",
    hostname,
    port: Number(port),
    method: "GET",
    path: "/a%20b",
    query: { uploads: "", prefix: "a b(1)/é", many: ["1", "2"] },
    headers: {},
  });
  expect(await asked.promise).toBe("/a%20b?uploads=&prefix=a%20b%281%29%2F%C3%A9&many=1&many=2");
  expect((await buffer(response.body)).toString()).toBe("ok");
});
