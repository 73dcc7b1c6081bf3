import { type PieceSource, reopened } from "./pieces.ts";

/** What happened to a body while a driver read it. */
export interface BodyRecord {
  readonly body: PieceSource;
  /** The body's own failure: it is not the backend's, and is not tried again. */
  failure(): { readonly error: unknown } | undefined;
  /** Whether the body is longer or shorter than it said. */
  isWrongLength(): boolean;
}

/** A body that remembers whether it was itself that failed. */
export function trackBody(body: PieceSource): BodyRecord {
  if (body.whole !== undefined) return { body, failure: () => undefined, isWrongLength: () => false };
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
      const pieces = await recorded(
        () => body.open(call),
        () => call.signal.aborted,
      );
      const next = async () => {
        const piece = await recorded(
          () => pieces.next(),
          () => isClosed || call.signal.aborted,
        );
        bytes += piece?.length ?? 0;
        const announced = body.sizeBytes ?? bytes;
        if (bytes > announced || (piece === undefined && bytes < announced)) isWrongLength = true;
        return piece;
      };
      const destroy = () => {
        isClosed = true;
        pieces.destroy();
      };
      return { next, destroy };
    }),
  };
}
