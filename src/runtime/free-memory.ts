import { setFlagsFromString } from "node:v8";

/**
 * Gives back the memory of bytes that nobody will look at again, if it is all theirs. Left to the garbage collector, which sees few objects and no
 * hurry, long bytes become many times what is at work, and then make it go through a heap with nothing to find.
 */
export function freeAtOnce({ buffer, byteLength }: Uint8Array): void {
  if (byteLength === buffer.byteLength && buffer instanceof ArrayBuffer) buffer.transfer(0);
}

/**
 * Lets the collector come when the heap is two and a half times what is alive, not up to four: bytes that pass hang on small objects, and those that
 * outlive two collections of the young generation keep tens of megabytes. Earlier still would cost speed: at one and a half times, a migration is a fifth
 * slower. Holds for all threads.
 */
export function collectEarly(): void {
  setFlagsFromString("--heap-growing-percent=150");
}
