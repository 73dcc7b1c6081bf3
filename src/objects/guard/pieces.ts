import { Readable } from "node:stream";
import type { Call } from "../../runtime/index.ts";
import { type BodySource, type ObjectDriver, type PhysicalKey, type StoredBlob, WholeBody } from "../driver.ts";

/** The bytes of a stream, piece by piece, each when it is asked for. One caller at a time. */
export interface Pieces {
  /** `undefined` at the end. */
  next(): Promise<Buffer | undefined>;
  destroy(): void;
}

/** A body whose pieces can be had again from the start. */
export interface PieceSource {
  open(call: Call): Promise<Pieces>;
  readonly sizeBytes?: number;
  /** All of it, where it is in memory: it is handed on as it is, for nothing about it can fail or be waited for. */
  readonly whole?: WholeSource;
}

type WholeSource = BodySource & { readonly bytes: Buffer };

/**
 * A driver as the layers of the guard see it. Between them, bodies and what is read are pieces: a stream at each layer would cost more than the small
 * documents that most objects are.
 */
export interface PieceDriver extends Omit<ObjectDriver, "put" | "get"> {
  put(key: PhysicalKey, body: PieceSource, call: Call): Promise<StoredBlob>;
  /** What the driver has as a whole comes as such, and ends with that. */
  get(...parameters: Parameters<ObjectDriver["get"]>): Promise<Pieces | WholeBody>;
}

/**
 * What is inside of the guard.
 * @param onTaken bytes that the driver takes from bodies
 */
export function inPieces(driver: ObjectDriver, onTaken: (bytes: number) => void): PieceDriver {
  return {
    ...forward(driver),
    put: (key, { whole, open, sizeBytes }, call) => {
      if (whole !== undefined) {
        onTaken(whole.bytes.length);
        return driver.put(key, whole, call);
      }
      const opened = async (under: Call) => streamOf(counted(await open(under), onTaken));
      return driver.put(key, sizeBytes === undefined ? { open: opened } : { open: opened, sizeBytes }, call);
    },
    async get(key, range, call) {
      const stream = await driver.get(key, range, call);
      return stream instanceof WholeBody ? stream : piecesOf(stream);
    },
  };
}

/** What is outside of it. */
export function inStreams(driver: PieceDriver): ObjectDriver {
  return {
    ...forward(driver),
    put(key, body, call) {
      const { bytes, sizeBytes } = body;
      if (bytes !== undefined) {
        const whole = { ...body, bytes, sizeBytes: bytes.length };
        return driver.put(key, { open: async () => onePiece(bytes), sizeBytes: bytes.length, whole }, call);
      }
      const open = async (under: Call) => piecesOf(await body.open(under));
      return driver.put(key, sizeBytes === undefined ? { open } : { open, sizeBytes }, call);
    },
    async get(key, range, call) {
      const found = await driver.get(key, range, call);
      return found instanceof WholeBody ? found : streamOf(found);
    },
  };
}

function counted(pieces: Pieces, onTaken: (bytes: number) => void): Pieces {
  return {
    async next() {
      const piece = await pieces.next();
      onTaken(piece?.length ?? 0);
      return piece;
    },
    destroy: () => pieces.destroy(),
  };
}

export function onePiece(bytes: Buffer): Pieces {
  let piece: Buffer | undefined = bytes.length === 0 ? undefined : bytes;
  return {
    async next() {
      const next = piece;
      piece = undefined;
      return next;
    },
    destroy() {},
  };
}

function piecesOf(stream: Readable): Pieces {
  // A failure is thrown by `next`; one that comes when nobody asks any more is nobody's.
  stream.on("error", () => {});
  const iterator = stream[Symbol.asyncIterator]();
  return {
    async next() {
      const { done, value } = await iterator.next();
      return done ? undefined : value;
    },
    destroy: () => void stream.destroy(),
  };
}

/** A stream that asks for a piece when its reader wants one, and holds no second one. */
function streamOf(pieces: Pieces): Readable {
  const stream = new Readable({
    highWaterMark: 1,
    read() {
      pieces.next().then(
        (piece) => stream.push(piece ?? null),
        (error: unknown) => stream.destroy(error instanceof Error ? error : new Error(String(error))),
      );
    },
    destroy(error, done) {
      pieces.destroy();
      done(error);
    },
  });
  return stream;
}

/** The body, opened in another way; what is whole need not be opened. */
export function reopened(body: PieceSource, open: PieceSource["open"]): PieceSource {
  return body.whole === undefined ? { ...body, open } : body;
}

type Around = <T>(operation: "get" | "purge", call: Call, work: (under: Call) => Promise<T>) => Promise<T>;

/** What the driver can do with many blobs in one request, each time within `around`. Not repeated: what it does not do is done one by one. */
export function manyWithin(
  driver: Pick<ObjectDriver, "getMany" | "purgeMany">,
  around: Around,
): Pick<ObjectDriver, "getMany" | "purgeMany"> {
  const { getMany, purgeMany } = driver;
  return {
    ...(getMany && { getMany: (keys, call) => around("get", call, (under) => getMany.call(driver, keys, under)) }),
    ...(purgeMany && {
      purgeMany: (blobs, call) => around("purge", call, (under) => purgeMany.call(driver, blobs, under)),
    }),
  };
}

/** What a listing has, each step of it within `around`. */
export async function* listedWithin<T>(
  listing: AsyncIterable<T>,
  around: <S>(step: () => Promise<S>) => Promise<S>,
): AsyncGenerator<T> {
  const items = listing[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { done, value } = await around(() => items.next());
      if (done) return;
      yield value;
    }
  } finally {
    await items.return?.();
  }
}

/** What layers hand on that do not care for it. */
export function forward(driver: Omit<ObjectDriver, "put" | "get">): Omit<ObjectDriver, "put" | "get"> {
  return {
    ...manyWithin(driver, (_, call, work) => work(call)),
    name: driver.name,
    ...(driver.statementPuts && { statementPuts: driver.statementPuts }),
    capabilities: (call) => driver.capabilities(call),
    delete: (key, call) => driver.delete(key, call),
    purge: (key, sizeBytes, call) => driver.purge(key, sizeBytes, call),
    list: (after, call) => driver.list(after, call),
    listForeign: (call) => driver.listForeign(call),
    [Symbol.asyncDispose]: () => driver[Symbol.asyncDispose](),
  };
}
