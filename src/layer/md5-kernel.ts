/** Messages that {@link Md5Kernel} digests at once. */
export const lanes = 8;
export const blockBytes = 64;

const lanesOfVector = 4;
const vectorBytes = 16;
const vectors = Array.from({ length: lanes / lanesOfVector }, (_, vector) => vector);
const registers = 4; // A, B, C, D
const steps = Array.from({ length: 64 }, (_, step) => step);
const shifts = [
  [7, 12, 17, 22],
  [5, 9, 14, 20],
  [4, 11, 16, 23],
  [6, 10, 15, 21],
] as const;

/** Where what begins in the memory: constants and registers four lanes wide, pointers to each lane's next block, messages. */
const constantsAt = 0;
const registersAt = constantsAt + steps.length * vectorBytes;
const pointersAt = registersAt + vectors.length * registers * vectorBytes;
export const messagesAt = 2048;

const pageBytes = 64 * 1024;

/**
 * MD5 of several messages at once, in WebAssembly that is put together below. Each of MD5's 64 steps waits for the one before, so one message can't fill
 * a processor, however it is written; eight do.
 * @see RFC 1321
 */
export class Md5Kernel {
  readonly memory: Buffer;
  readonly #words: Uint32Array;
  readonly #digest: (blocks: number) => void;

  /** @throws where the processor lacks what WebAssembly's vectors need */
  constructor(messagesBytes: number) {
    const { Module, Instance } = (globalThis as unknown as { readonly WebAssembly: WebAssemblyApi }).WebAssembly;
    const instance = new Instance(new Module(moduleOf(Math.ceil((messagesAt + messagesBytes) / pageBytes))));
    this.memory = Buffer.from(instance.exports.memory.buffer);
    this.#words = new Uint32Array(this.memory.buffer);
    this.#digest = instance.exports.digest;
    for (const step of steps) {
      const constant = Math.floor(Math.abs(Math.sin(step + 1)) * 2 ** 32);
      const at = (constantsAt + step * vectorBytes) / 4;
      this.#words.fill(constant, at, at + lanesOfVector);
    }
  }

  /** A message begins whose first block is there. */
  begin(lane: number, pointer: number): void {
    this.point(lane, pointer);
    const words = this.#words;
    const at = firstWord(lane);
    words[at] = 0x67452301;
    words[at + lanesOfVector] = 0xefcdab89;
    words[at + 2 * lanesOfVector] = 0x98badcfe;
    words[at + 3 * lanesOfVector] = 0x10325476;
  }

  /** Where a lane's next block is; a lane without a message needs one too. */
  point(lane: number, pointer: number): void {
    this.#words[pointersAt / 4 + lane] = pointer;
  }

  /** Digests so many blocks of each lane, at least 1, and goes on behind them. */
  digest(blocks: number): void {
    this.#digest(blocks);
  }

  /** Writes a lane's digest: 4 words. */
  take(lane: number, target: Uint32Array, at: number): void {
    const first = firstWord(lane);
    for (let register = 0; register < registers; register++) {
      target[at + register] = this.#words[first + register * lanesOfVector] as number;
    }
  }
}

/** Of register A of a lane; the others follow, a vector apart. */
function firstWord(lane: number): number {
  const inVector = lane % lanesOfVector;
  return (registersAt / vectorBytes + ((lane - inVector) / lanesOfVector) * registers) * lanesOfVector + inVector;
}

/** What is used of it; its types come with the browser's only. */
interface WebAssemblyApi {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
  ) => {
    readonly exports: { readonly memory: { readonly buffer: ArrayBuffer }; readonly digest: (blocks: number) => void };
  };
}

type Code = readonly number[];

// What follows is named as in the specification of WebAssembly (https://webassembly.github.io/spec/core/binary/).
const i32 = 0x7f;
const v128 = 0x7b;
const end = 0x0b;
const i32Add: Code = [0x6a];
const i32Sub: Code = [0x6b];
const not = vectorCode(0x4d);
const and = vectorCode(0x4e);
const or = vectorCode(0x50);
const xor = vectorCode(0x51);
const shl = vectorCode(0xab);
const shr = vectorCode(0xad);
const add = vectorCode(0xae);

/** Four words of four messages, a vector for each message, become a vector for each word. */
const lowWords = shuffle(0, 4, 1, 5);
const highWords = shuffle(2, 6, 3, 7);
const lowPairs = shuffle(0, 1, 4, 5);
const highPairs = shuffle(2, 3, 6, 7);

function moduleOf(pages: number): Uint8Array {
  const type = [1, 0x60, 1, i32, 0];
  const memory = [1, 1, ...unsigned(pages), ...unsigned(pages)];
  const exports = [2, ...name("memory"), 2, 0, ...name("digest"), 0, 0];
  const body = digestCode();
  const code = [1, ...unsigned(body.length), ...body];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, type),
    ...section(3, [1, 0]),
    ...section(5, memory),
    ...section(7, exports),
    ...section(10, code),
  ]);
}

/** `digest(blocks)`: parameter and pointers are its integers, all else that it remembers are vectors. */
function digestCode(): Code {
  const blocks = 0;
  const pointers = Array.from({ length: lanes }, (_, lane) => 1 + lane);
  let locals = 1 + lanes;
  const several = (count: number) => Array.from({ length: count }, () => locals++);
  const states = vectors.map(() => several(registers));
  const words = vectors.map(() => several(16));
  const [one = 0, two = 0, three = 0, four = 0] = several(4);
  const code: number[] = [];

  for (const [lane, pointer] of pointers.entries()) code.push(...loadInteger(pointersAt + 4 * lane), ...set(pointer));
  for (const vector of vectors) {
    for (const [register, local] of (states[vector] as number[]).entries()) {
      code.push(...constant(0), ...load(registerAt(vector, register)), ...set(local));
    }
  }
  code.push(0x03, 0x40); // loop
  for (const vector of vectors) {
    for (let word = 0; word < 16; word += 4) {
      const block = (lane: number): Code => [
        ...get(pointers[vector * lanesOfVector + lane] as number),
        ...load(4 * word),
      ];
      const [p0, p1, p2, p3] = [block(0), block(1), block(2), block(3)];
      const [w0, w1, w2, w3] = (words[vector] as number[]).slice(word) as [number, number, number, number];
      code.push(...p0, ...p1, ...lowWords, ...set(one), ...p2, ...p3, ...lowWords, ...set(two));
      code.push(...p0, ...p1, ...highWords, ...set(three), ...p2, ...p3, ...highWords, ...set(four));
      code.push(...get(one), ...get(two), ...lowPairs, ...set(w0), ...get(one), ...get(two), ...highPairs, ...set(w1));
      code.push(...get(three), ...get(four), ...lowPairs, ...set(w2));
      code.push(...get(three), ...get(four), ...highPairs, ...set(w3));
    }
  }
  for (const step of steps) {
    const round = step >> 4;
    const word = [step, 5 * step + 1, 3 * step + 5, 7 * step][round] as number;
    const shift = shifts[round]?.[step % 4] as number;
    for (const vector of vectors) {
      const turned = (register: number) => (states[vector] as number[])[(register + 3 * step) % registers] as number;
      const [a, b, c, d] = [turned(0), turned(1), turned(2), turned(3)];
      const mixed = [
        [...get(d), ...get(b), ...get(c), ...get(d), ...xor, ...and, ...xor],
        [...get(c), ...get(d), ...get(b), ...get(c), ...xor, ...and, ...xor],
        [...get(b), ...get(c), ...xor, ...get(d), ...xor],
        [...get(c), ...get(b), ...get(d), ...not, ...or, ...xor],
      ][round] as Code;
      code.push(...get(a), ...constant(0), ...load(constantsAt + step * vectorBytes), ...add);
      code.push(...get((words[vector] as number[])[word % 16] as number), ...add, ...mixed, ...add, ...tee(one));
      code.push(...constant(shift), ...shl, ...get(one), ...constant(32 - shift), ...shr, ...or, ...get(b), ...add);
      code.push(...set(a));
    }
  }
  for (const vector of vectors) {
    for (const [register, local] of (states[vector] as number[]).entries()) {
      const at = registerAt(vector, register);
      code.push(...constant(0), ...constant(0), ...load(at), ...get(local), ...add, ...tee(local), ...store(at));
    }
  }
  for (const [lane, pointer] of pointers.entries()) {
    code.push(...get(pointer), ...constant(blockBytes), ...i32Add, ...set(pointer));
    code.push(...constant(0), ...get(pointer), ...storeInteger(pointersAt + 4 * lane));
  }
  code.push(...get(blocks), ...constant(1), ...i32Sub, ...tee(blocks), 0x0d, 0, end, end); // br_if
  return [2, ...unsigned(lanes), i32, ...unsigned(locals - 1 - lanes), v128, ...code];
}

function registerAt(vector: number, register: number): number {
  return registersAt + (vector * registers + register) * vectorBytes;
}

function section(id: number, content: Code): Code {
  return [id, ...unsigned(content.length), ...content];
}

function name(text: string): Code {
  return [text.length, ...Buffer.from(text)];
}

function get(local: number): Code {
  return [0x20, ...unsigned(local)];
}

function set(local: number): Code {
  return [0x21, ...unsigned(local)];
}

function tee(local: number): Code {
  return [0x22, ...unsigned(local)];
}

function constant(value: number): Code {
  return [0x41, ...signed(value)];
}

function loadInteger(at: number): Code {
  return [...constant(0), 0x28, 2, ...unsigned(at)];
}

function storeInteger(at: number): Code {
  return [0x36, 2, ...unsigned(at)];
}

function load(at: number): Code {
  return [...vectorCode(0), 0, ...unsigned(at)];
}

function store(at: number): Code {
  return [...vectorCode(11), 0, ...unsigned(at)];
}

/** Of the eight words of two vectors. */
function shuffle(...words: readonly number[]): Code {
  return [...vectorCode(13), ...words.flatMap((word) => [4 * word, 4 * word + 1, 4 * word + 2, 4 * word + 3])];
}

function vectorCode(code: number): Code {
  return [0xfd, ...unsigned(code)];
}

/** LEB128. */
function unsigned(value: number): Code {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)];
}

function signed(value: number): Code {
  return value < 0x40 ? [value] : [(value & 0x7f) | 0x80, ...signed(value >> 7)];
}
