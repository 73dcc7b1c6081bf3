import type { BodySource } from "../driver.ts";
import { PieceReader, reopened, streamOf } from "./pieces.ts";

/** What happened to a body while a driver read it. */
export interface BodyRecord {
  readonly body: BodySource;
  /** The body's own failure: it is not the backend's, and is not tried again. */
  failure(): { readonly error: unknown } | undefined;
  /** Whether the body is longer or shorter than it said. */
  isWrongLength(): boolean;
}

/** A body that remembers whether it was itself that failed. */
export function trackBody(body: BodySource, onPiece: (bytes: number) => void = () => {}): BodyRecord {
  let failure: { readonly error: unknown } | undefined;
  let isWrongLength = false;
  const recorded = async <T>(work: () => Promise<T>, isAbandoned: () => boolean): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      // Whoever closes a body before its end makes it fail: that is the driver's doing.
      if (!isAbandoned()) failure ??= { error };
      throw error;
    }
  };
  return {
    failure: () => failure,
    isWrongLength: () => isWrongLength,
    body: reopened(body, async (call) => {
      failure = undefined;
      isWrongLength = false;
      let isClosed = false;
      let bytes = 0;
      const stream = await recorded(
        () => body.open(call),
        () => call.signal.aborted,
      );
      const reader = new PieceReader(stream);
      const pull = async () => {
        const piece = await recorded(
          () => reader.next(),
          () => isClosed || call.signal.aborted,
        );
        bytes += piece?.length ?? 0;
        const announced = body.sizeBytes ?? bytes;
        if (bytes > announced || (piece === undefined && bytes < announced)) isWrongLength = true;
        if (piece !== undefined) onPiece(piece.length);
        return piece;
      };
      return streamOf(pull, () => {
        isClosed = true;
        reader.destroy();
      });
    }),
  };
}
