import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export interface Way {
  readonly roundTripMs: number;
  /** What all connections together carry in each direction; as much as the machine can, if nothing is said. */
  readonly bytesPerSecond?: number;
}

/** The server of `url` as somebody sees it who is so far away from it: all bytes arrive later, and over a narrow way one after the other. */
export async function farAway(url: string, way: Way): Promise<AsyncDisposable & { readonly url: string }> {
  const { hostname, port } = new URL(url);
  const sockets = new Set<Socket>();
  const directions = [new Direction(way), new Direction(way)] as const;
  const server = createServer({ noDelay: true }, (near) => {
    const far = connect({ host: hostname, port: Number(port), noDelay: true });
    for (const [direction, from, to] of [
      [directions[0], near, far],
      [directions[1], far, near],
    ] as const) {
      sockets.add(from);
      direction.carry(from, to, () => {
        from.destroy();
        to.destroy();
        sockets.delete(from);
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

class Direction {
  readonly #delayMs: number;
  readonly #bytesPerMs: number;
  readonly #heldBytesMax: number;
  /** When the last byte so far has entered the way. */
  #freeAt = 0;

  constructor({ roundTripMs, bytesPerSecond = Number.POSITIVE_INFINITY }: Way) {
    this.#delayMs = roundTripMs / 2;
    this.#bytesPerMs = bytesPerSecond / 1000;
    // Of each connection: enough for what is on its way; before a narrow one there is no more room than before a real one.
    this.#heldBytesMax = bytesPerSecond === Number.POSITIVE_INFINITY ? 8 * 1024 * 1024 : 256 * 1024;
  }

  carry(from: Socket, to: Socket, onEnd: () => void): void {
    // Timers of different lengths need not end in their order; bytes must arrive in theirs.
    const onTheWay: Buffer[] = [];
    let heldBytes = 0;
    let arrivesAt = 0;
    from.on("data", (chunk: Buffer) => {
      heldBytes += chunk.length;
      if (heldBytes > this.#heldBytesMax) from.pause();
      const now = performance.now();
      this.#freeAt = Math.max(this.#freeAt, now) + chunk.length / this.#bytesPerMs;
      arrivesAt = this.#freeAt + this.#delayMs;
      onTheWay.push(chunk);
      setTimeout(() => {
        const first = onTheWay.shift() as Buffer;
        heldBytes -= first.length;
        if (heldBytes <= this.#heldBytesMax) from.resume();
        if (to.writable) to.write(first);
      }, arrivesAt - now);
    });
    from.on("error", () => {}); // it closes
    // After what is still on its way.
    from.on("close", () => setTimeout(onEnd, this.#delayMs + Math.max(0, arrivesAt - performance.now())));
  }
}
