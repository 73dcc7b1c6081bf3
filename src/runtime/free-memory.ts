/**
 * Gives back the memory of bytes that nobody will look at again, if it is all theirs. Left to the garbage collector, which sees few objects and no
 * hurry, long bytes become many times what is at work, and then make it go through a heap with nothing to find.
 */
export function freeAtOnce({ buffer, byteLength }: Uint8Array): void {
  if (byteLength === buffer.byteLength && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
