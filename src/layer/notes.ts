import type { LimitName } from "../config/index.ts";

/**
 * Something about a layer or image that its users should know: places where unpackers disagree or fail (analysis.md B21–B46), content that was
 * left out. `code` is stable.
 */
export interface Note {
  readonly code: NoteCode;
  /** Image path, text form. */
  readonly path: string;
  readonly text: string;
}

/** What each note says; the text of a note is this. */
const noteTexts = {
  "whiteout-after-entry":
    "the layer adds this name and then whites it out; the specification keeps the name, most unpackers remove it",
  "whiteout-and-directory":
    "the layer whites this out and adds a directory of the same name; overlay drivers let the lower children reappear",
  "name-twice": "the layer holds this name more than once; the last wins, some runtimes refuse the layer",
  "bare-whiteout": "a whiteout without a name means nothing; some unpackers fail",
  "whiteout-and-content":
    "the layer whites this out and adds names below it without an entry for the directory; overlay drivers fail",
  "whiteout-meta": "a reserved whiteout name of an old union file system; its own entry is ignored",
  "inside-whiteout-meta":
    "the entry lies in a reserved directory of an old union file system; it is kept, Podman and Docker drop it",
  "device-whiteout": "a character device 0/0 is a whiteout to overlay drivers, a device to others",
  "symlink-loop": "symbolic links lead in a circle; the entry is left out, unpackers fail",
  "below-file": "the entry lies below something that is no directory in the same layer; it is left out, unpackers fail",
  "dangling-directory":
    "a name leads through a symbolic link to this directory, and nothing before it in the layer makes the directory; it is made, Podman and Docker fail (with their vfs drivers only where no lower layer has it)",
  "link-target-missing": "no layer that was read has the target of this hard link; it is left out, unpackers fail",
  "link-target-later": "the target of this hard link comes only later in the layer; it is left out, unpackers fail",
  "link-target-too-far":
    "this hard link leads in a circle, or through more symbolic links of lower layers than are followed; it is left out",
  "link-target-directory": "this hard link points to a directory; it is left out, unpackers fail",
  "link-to-lower-layer": "this hard link points to a file of a lower layer; overlay drivers fail",
  "link-through-lower-symlink":
    "this hard link leads through a symbolic link of a lower layer to a file of its own layer; overlay drivers fail",
  "link-changes-attributes":
    "hard link entries give this file other attributes than its own entry; they count for all its names, some unpackers ignore them",
  "link-target-whited-out": "this hard link points to a file that the same layer whites out; overlay drivers fail",
  "directory-hides-symlink":
    "a directory that no layer names hides a symbolic link of a lower layer; unpackers that merge trees follow the link instead",
  "directory-replaces-file":
    "a directory that no layer names replaces a file of a lower layer; unpackers that merge trees fail",
  "directory-not-named":
    "a layer puts something into this directory without an entry for it; the mode and owner of the lower layer stay, some overlay drivers make it 0755 and root's",
  "unknown-type": "a tar entry of a type that runtimes refuse; its content is kept as a file",
  "ignored-type": "a tar entry that is no file (volume label or continuation); ignored",
  "outside-root": "the name leads out of the root with `..`; it is kept inside, some unpackers refuse the layer",
  "empty-name": "a tar entry without a name; ignored",
  "content-too-large": "the file is larger than its cataloger reads; its findings are missing",
  "layer-not-fetched": "the layer is not distributed with the image and was not fetched; nothing is known of it",
  "cataloger-problem": "a cataloger could not read something",
} as const;

export type NoteCode = keyof typeof noteTexts;

/** Notes up to a limit (`notesMax`), and how many more there were. */
export class NoteList {
  readonly #max: number;
  readonly #notes: Note[] = [];
  #leftOut = 0;

  constructor(limits: Readonly<Record<Extract<LimitName, "notesMax">, number>>) {
    this.#max = limits.notesMax;
  }

  add(code: NoteCode, path: string, text: string = noteTexts[code]): void {
    if (this.#notes.length < this.#max) this.#notes.push({ code, path, text });
    else this.#leftOut++;
  }

  /** In the order of path, then code, whatever order they came in. */
  get notes(): readonly Note[] {
    return this.#notes.toSorted((a, b) => compare(a.path, b.path) || compare(a.code, b.code));
  }

  get leftOut(): number {
    return this.#leftOut;
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
