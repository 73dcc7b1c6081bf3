import { type AddressInfo, connect, createServer, type Socket } from "node:net";

const heldBytesMax = 8 * 1024 * 1024;

/** The server of `url` as somebody sees it who is half of `roundTripMs` away from it: all bytes arrive so much later, none of them slower. */
export async function farAway(url: string, roundTripMs: number): Promise<AsyncDisposable & { readonly url: string }> {
  const { hostname, port } = new URL(url);
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (near) => {
    const far = connect({ host: hostname, port: Number(port), noDelay: true });
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      carry(from, to, roundTripMs / 2, () => {
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

function carry(from: Socket, to: Socket, delayMs: number, onEnd: () => void): void {
  let heldBytes = 0;
  from.on("data", (chunk: Buffer) => {
    heldBytes += chunk.length;
    if (heldBytes > heldBytesMax) from.pause();
    setTimeout(() => {
      heldBytes -= chunk.length;
      if (heldBytes <= heldBytesMax) from.resume();
      if (to.writable) to.write(chunk);
    }, delayMs);
  });
  from.on("error", () => {}); // it closes
  // After what is still on its way.
  from.on("close", () => setTimeout(onEnd, delayMs));
}
