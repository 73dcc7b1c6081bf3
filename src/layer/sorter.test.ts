import { tmpdir } from "node:os";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ByteReader, ByteWriter } from "./bytes.ts";
import type { LayerNode } from "./entry.ts";
import type { PathKey } from "./path.ts";
import { compareRecords, mergeSorted, RecordSorter, type SortRecord } from "./sorter.ts";
import { closeSpill, openSpill, Spill } from "./spill.ts";

let descriptor: number;
let spill: Spill;

beforeEach(() => {
  descriptor = openSpill(tmpdir());
  spill = new Spill(descriptor);
});
afterEach(() => closeSpill(descriptor));

const node: LayerNode = {
  type: "file",
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtime: 0,
  size: 0,
  digests: "d".repeat(68),
  link: undefined,
  deviceMajor: 0,
  deviceMinor: 0,
  xattrs: undefined,
};

function record(key: string, sequence: number, more: Partial<SortRecord> = {}): SortRecord {
  return { key: key as PathKey, sequence, mark: undefined, node, isRequest: false, hops: 0, targetLength: 0, ...more };
}

/** Every sort of record, in an order that looks like none. */
function* records(count: number): Generator<SortRecord> {
  let random = 12345;
  for (let sequence = 0; sequence < count; sequence++) {
    random = (Math.imul(random, 1103515245) + 12345) >>> 0;
    const key = `d${random % 97}\0${(random >>> 7) % 5000}`;
    const { hops = 0, ...more } = variants[sequence % variants.length] ?? {};
    yield record(key, sequence, { ...more, hops });
  }
}

const variants: readonly Partial<SortRecord>[] = [
  {},
  { mark: "whiteout", node: undefined },
  { mark: "opaque", node: undefined, hops: 3 },
  { node: { ...node, type: "hardlink", digests: undefined, link: "a\0b" }, isRequest: true },
  { node: { ...node, type: "symlink", digests: undefined, link: "../\xff" }, hops: 40 },
  { node: { ...node, size: 2 ** 52, uid: -7, gid: 2 ** 31, mtime: -(2 ** 40) } },
  { node: { ...node, type: "block", digests: undefined, deviceMajor: 259, deviceMinor: 2 ** 20 } },
  { node: { ...node, xattrs: Object.assign(Object.create(null), { "user.x": "\0\xff", __proto__x: "" }) } },
];

describe("sorting records", () => {
  it("keeps few of them in memory, and the spill empty", () => {
    const sorter = new RecordSorter(spill);
    expect(sorter.isEmpty).toBe(true);
    const some = [...records(1000)];
    for (const one of some) sorter.add(one);
    expect(sorter.isEmpty).toBe(false);
    expect([...sorter.records()]).toEqual(some.toSorted(compareRecords));
    expect(spill.sizeBytes).toBe(0);
  });

  it("gives more than fit into memory back in order, all of each, as often as asked", () => {
    const sorter = new RecordSorter(spill);
    const all = [...records(120_000)];
    for (const one of all) sorter.add(one);
    expect(spill.sizeBytes).toBeGreaterThan(0);
    all.sort(compareRecords);
    for (let time = 0; time < 2; time++) {
      let at = 0;
      for (const one of sorter.records()) {
        // One assertion for each would take minutes.
        if (JSON.stringify(one) !== JSON.stringify(all[at])) expect(one).toEqual(all[at]);
        at++;
      }
      expect(at).toBe(all.length);
    }
  });

  it("spills by bytes too, and reads records larger than what it reads at once", () => {
    const sorter = new RecordSorter(spill);
    const long = Array.from({ length: 30 }, (_, index) =>
      record(`${String.fromCharCode(0x7a - (index % 26))}${"n".repeat(1_000_000)}`, index, {
        node: { ...node, type: "symlink", digests: undefined, link: "t".repeat(10_000) },
      }),
    );
    for (const one of long) sorter.add(one);
    expect(spill.sizeBytes).toBeGreaterThan(8_000_000);
    const sorted = [...sorter.records()];
    expect(sorted.map(({ sequence }) => sequence)).toEqual(
      long.toSorted(compareRecords).map(({ sequence }) => sequence),
    );
    expect(sorted.every((one) => one.key.length === 1_000_001 && one.node?.link?.length === 10_000)).toBe(true);
  });

  it("goes on after it has been read", () => {
    const sorter = new RecordSorter(spill);
    sorter.add(record("b", 1));
    expect([...sorter.records()]).toHaveLength(1);
    sorter.add(record("a", 2));
    expect([...sorter.records()].map(({ key }) => key)).toEqual(["a", "b"]);
  });

  it("merges sorted sequences", () => {
    const sequence = fc
      .array(fc.tuple(fc.constantFrom("a", "a\0b", "ab", ""), fc.nat({ max: 99 })))
      .map((pairs) => pairs.map(([key, at]) => record(key, at)).sort(compareRecords));
    fc.assert(
      fc.property(fc.array(sequence, { maxLength: 9 }), (sequences) => {
        const merged = [...mergeSorted(sequences.map((one) => one.values()))];
        expect(merged.map(({ key, sequence: at }) => [key, at])).toEqual(
          sequences
            .flat()
            .sort(compareRecords)
            .map(({ key, sequence: at }) => [key, at]),
        );
      }),
    );
  });
});

describe("integers and strings", () => {
  it("come back as they were, up to the largest", () => {
    const unsigned = fc.oneof(fc.maxSafeNat(), fc.nat({ max: 300 }), fc.constantFrom(2 ** 31, 2 ** 32, 2 ** 53 - 1));
    // Twice the number must be exact.
    const signed = fc.integer({ min: -(2 ** 52), max: 2 ** 52 });
    const text = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes).toString("latin1"));
    fc.assert(
      fc.property(fc.array(fc.tuple(unsigned, signed, text), { maxLength: 20 }), (values) => {
        const writer = new ByteWriter();
        for (const [a, b, c] of values) {
          writer.varint(a);
          writer.signed(b);
          writer.text(c);
        }
        const reader = new ByteReader(Buffer.from(writer.take()));
        for (const [a, b, c] of values)
          expect([reader.varint(), reader.signed(), reader.text()]).toEqual([a, b + 0, c]);
        expect(reader.remaining).toBe(0);
        expect(() => reader.byte()).toThrow(RangeError);
      }),
    );
  });

  it("never run past the end, or on for ever", () => {
    expect(() => new ByteReader(Buffer.from([5, 1])).text()).toThrow(RangeError);
    expect(() => new ByteReader(Buffer.alloc(20, 0xff)).varint()).toThrow(RangeError);
    expect(() => new ByteReader(Buffer.from([0x80])).varint()).toThrow(RangeError);
  });
});
