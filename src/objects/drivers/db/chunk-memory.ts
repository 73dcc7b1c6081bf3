/** Chunks that all long blobs together have in memory while they are gathered or handed on; as many again are on their way. */
const chunksTogether = 64;
/** More of them in one statement would save little. */
export const chunksMax = 4;

/** Lets the memory of all bodies be bounded, however many there are: the more are at work, the fewer chunks of each go in one statement. */
export class ChunkMemory {
  #users = 0;

  /** One body's part in it, until that is disposed of. */
  share(): ChunkShare {
    this.#users++;
    const chunks = () => Math.max(1, Math.min(chunksMax, Math.floor(chunksTogether / this.#users)));
    return {
      get chunks() {
        return chunks();
      },
      [Symbol.dispose]: () => {
        this.#users--;
      },
    };
  }
}

export interface ChunkShare extends Disposable {
  /** How many may go in one statement just now. */
  readonly chunks: number;
}
