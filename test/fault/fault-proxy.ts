import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { createRandom } from "./random.ts";

/**
 * What happens to a connection, or to one request of it.
 *
 * A connection is looked at as bytes; only `answer` and `drop` look for the end of a request's head, to know when to speak.
 */
export type ConnectionFault =
  /** Both ends are reset once so many bytes went in a direction: `up` is to the server. */
  | { readonly kind: "reset"; readonly direction: "up" | "down"; readonly after: number }
  /** Nothing passes any more in a direction after so many bytes; the connection stays open. */
  | { readonly kind: "stall"; readonly direction: "up" | "down"; readonly after: number }
  /** The answer ends early, in an orderly way: the server's side seems to close. */
  | { readonly kind: "truncate"; readonly after: number }
  /** The proxy answers itself; the server never sees the request. */
  | { readonly kind: "answer"; readonly status: number; readonly headers?: Readonly<Record<string, string>> }
  /** The server gets the whole request and does it; the client is told something else. */
  | { readonly kind: "replace"; readonly status: number; readonly headers?: Readonly<Record<string, string>> };

export interface InjectedConnectionFault {
  /** The first connection is 1. */
  readonly connection: number;
  readonly fault: ConnectionFault;
}

/** Decides for each connection, in the order in which they come. */
export type ConnectionChoice = (connection: number) => ConnectionFault | undefined;

export function plannedConnections(plan: Readonly<Record<number, ConnectionFault>>): ConnectionChoice {
  return (connection) => plan[connection];
}

/** The same seed and the same order of connections give the same faults. `bytesMax`: how far into a connection they lie. */
export function randomConnections(options: {
  readonly seed: number;
  readonly rate: number;
  readonly bytesMax: number;
  /** Default: all but `stall`, which needs a client that loses patience. */
  readonly kinds?: readonly ConnectionFault["kind"][];
}): ConnectionChoice {
  const random = createRandom(options.seed);
  const kinds = options.kinds ?? ["reset", "truncate", "answer", "replace"];
  return () => {
    const draws = [random.next(), random.next(), random.next(), random.next()] as const;
    if (draws[0] >= options.rate) return undefined;
    const kind = kinds[Math.floor(draws[1] * kinds.length)] as ConnectionFault["kind"];
    const direction = draws[2] < 0.5 ? "up" : "down";
    const after = Math.floor(draws[3] * options.bytesMax);
    switch (kind) {
      case "reset":
      case "stall":
        return { kind, direction, after };
      case "truncate":
        return { kind, after };
      case "answer":
        return { kind, status: 503, headers: { "retry-after": "0" } };
      case "replace":
        return { kind, status: draws[2] < 0.5 ? 500 : 503 };
    }
  };
}

export interface FaultProxy extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  readonly injected: readonly InjectedConnectionFault[];
  /** Connections so far. */
  readonly connections: number;
  /** Resolves once the fault of a connection has taken effect. */
  struck(connection: number): Promise<void>;
  /** While false, everything passes. */
  isArmed: boolean;
  choose: ConnectionChoice;
}

export interface FaultProxyOptions {
  readonly host: string;
  readonly port: number;
  readonly choose: ConnectionChoice;
}

/**
 * A TCP proxy in front of a real server. Faults are chosen for each connection: a client that keeps connections alive meets one where the plan says,
 * counted in connections and bytes, not in requests; one that uses each connection once meets it at that request.
 */
export async function startFaultProxy(options: FaultProxyOptions): Promise<FaultProxy> {
  const sockets = new Set<Socket>();
  const injected: InjectedConnectionFault[] = [];
  let connections = 0;
  const strikes = new Map<number, PromiseWithResolvers<void>>();
  const strikeOf = (connection: number) => {
    const strike = strikes.get(connection) ?? Promise.withResolvers<void>();
    strikes.set(connection, strike);
    return strike;
  };
  const server: Server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (client) => {
    const connection = ++connections;
    const chosen = proxy.choose(connection);
    const fault = proxy.isArmed ? chosen : undefined;
    if (fault !== undefined) injected.push({ connection, fault });
    const upstream = fault?.kind === "answer" ? undefined : connect({ ...options, allowHalfOpen: true });
    for (const socket of [client, upstream]) {
      if (socket === undefined) continue;
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on("close", () => sockets.delete(socket));
    }
    if (upstream === undefined) answerAlone(client, fault as Extract<ConnectionFault, { kind: "answer" }>);
    else join(client, upstream, fault, strikeOf(connection).resolve);
  });
  const proxy: FaultProxy = {
    host: "127.0.0.1",
    port: await listen(server),
    injected,
    get connections() {
      return connections;
    },
    struck: (connection) => strikeOf(connection).promise,
    isArmed: true,
    choose: options.choose,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
  return proxy;
}

function join(client: Socket, upstream: Socket, fault: ConnectionFault | undefined, strike: () => void): void {
  const both = [client, upstream];
  const reset = () => {
    for (const socket of both) socket.resetAndDestroy();
  };
  // What breaks on one side breaks on the other.
  client.on("error", () => upstream.resetAndDestroy());
  upstream.on("error", () => client.resetAndDestroy());
  client.on("close", () => upstream.destroy());
  upstream.on("close", () => {
    if (!client.writableEnded) client.destroy();
  });

  const pass = (from: Socket, to: Socket, direction: "up" | "down") => {
    const own = fault !== undefined && "direction" in fault && fault.direction === direction ? fault : undefined;
    const truncated = fault?.kind === "truncate" && direction === "down" ? fault : undefined;
    let left = own?.after ?? truncated?.after ?? Number.POSITIVE_INFINITY;
    from.on("data", (bytes: Buffer) => {
      const allowed = bytes.subarray(0, Math.max(0, Math.min(bytes.length, left)));
      left -= allowed.length;
      // A reset may overtake what was written before it: it waits until that has gone.
      const isOver = allowed.length < bytes.length || left === 0;
      if (isOver) strike();
      const isPassed =
        to.writableEnded || to.destroyed || to.write(allowed, () => isOver && own?.kind === "reset" && reset());
      if (isOver && truncated !== undefined) {
        to.end();
        upstream.destroy();
      } else if (isOver && own?.kind === "stall") from.pause();
      else if (!isPassed) {
        from.pause();
        to.once("drain", () => from.resume());
      }
    });
    from.on("end", () => {
      if (own?.kind !== "stall" || left > 0) to.end();
    });
    if (own?.kind === "reset" && left === 0) to.once("connect", reset);
  };
  pass(client, upstream, "up");
  if (fault?.kind === "replace") replaceAnswer(client, upstream, fault);
  else pass(upstream, client, "down");
  client.resume();
}

/** Reads the head of a request, and its body where a length or a wish to continue shows one, then answers. */
function answerAlone(client: Socket, fault: Extract<ConnectionFault, { kind: "answer" }>): void {
  let head = "";
  client.on("error", () => client.destroy());
  client.on("data", (bytes: Buffer) => {
    if (head.includes("\r\n\r\n") || head.length > 65_536) return; // the body is drained: an answer over unread bytes would be a reset
    head += bytes.toString("latin1");
    if (head.includes("\r\n\r\n")) client.end(answerOf(fault));
  });
  client.on("end", () => client.destroy());
  client.resume();
}

/** Lets the server's answer come, so that what was asked for is done, and gives another one. */
function replaceAnswer(client: Socket, upstream: Socket, fault: Extract<ConnectionFault, { kind: "replace" }>): void {
  let isDone = false;
  const continued = "HTTP/1.1 100 Continue\r\n\r\n";
  let head = "";
  upstream.on("data", (bytes: Buffer) => {
    if (isDone) return;
    head += bytes.toString("latin1");
    // The client asks whether it may send its body: it must, or nothing would be done.
    if (head.startsWith("HTTP/1.1 100")) {
      if (!head.includes("\r\n\r\n")) return;
      head = head.slice(head.indexOf("\r\n\r\n") + 4);
      client.write(continued);
    }
    if (head === "") return;
    isDone = true;
    client.end(answerOf(fault));
  });
  upstream.on("end", () => upstream.destroy());
}

function answerOf({ status, headers = {} }: { status: number; headers?: Readonly<Record<string, string>> }): string {
  const lines = Object.entries({ ...headers, "content-length": "0", connection: "close" });
  return `HTTP/1.1 ${status} Injected\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`;
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  return (server.address() as AddressInfo).port;
}
