import { hash } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { rpmSchema, sqliteFiles } from "../../../test/catalogers/rpm-database.ts";
import { ProblemList } from "../record.ts";
import { openSqlite } from "./sqlite-pages.ts";
import { findTable, readRows, type SqliteValue } from "./sqlite-table.ts";

function read(file: Buffer, wal?: Buffer, table = "Packages"): { rows: SqliteValue[][]; problems: string[] } | string {
  const pages = openSqlite(file, wal);
  if (typeof pages === "string") return pages;
  const problems = new ProblemList("db");
  const root = findTable(pages, table, problems);
  if (typeof root === "string") return root;
  const rows = [...readRows(pages, root, problems)];
  return { rows, problems: [...problems.findings()].map((finding) => (finding.value as { text: string }).text) };
}

/** Blobs as node:sqlite tells them and as read from the files, log included. */
function bothWays(write: (database: DatabaseSync) => void): {
  told: string[];
  found: string[];
  problems: string[];
} {
  let told: string[] = [];
  const { file, wal } = sqliteFiles((database) => {
    write(database);
    told = database
      .prepare("SELECT blob FROM Packages ORDER BY hnum")
      .all()
      .map((row) => digestOf(row.blob));
  });
  const result = read(file, wal);
  if (typeof result === "string") throw new Error(result);
  return { told, found: result.rows.map((row) => digestOf(row[1])), problems: result.problems };
}

/** Length and digest of a blob: a megabyte is slow to compare byte by byte. */
function digestOf(value: unknown): string {
  return value instanceof Uint8Array ? `${value.length} ${hash("sha1", value)}` : typeof value;
}

function blobOf(bytes: number, seed: number): Buffer {
  return Buffer.alloc(bytes, Buffer.from(Array.from({ length: 251 }, (_, at) => (at * 7 + seed) % 256)));
}

describe("tables read as node:sqlite reads them", () => {
  it.each([512, 1024, 2048, 4096, 8192, 16384, 32768, 65536])(
    "page size %i, with overflow and interior pages",
    (pageSize) => {
      const result = bothWays((database) => {
        database.exec(`PRAGMA page_size=${pageSize}`);
        database.exec(rpmSchema);
        const insert = database.prepare("INSERT INTO Packages (blob) VALUES (?)");
        // Lengths around the limits of a page, and far beyond.
        for (let length = pageSize - 60; length < pageSize + 20; length += 3) insert.run(blobOf(length, length));
        for (const length of [0, 1, 127, 128, 400_000, 1_000_003]) insert.run(blobOf(length, length));
        for (let number = 0; number < 500; number += 1) insert.run(blobOf(number, number));
      });
      expect(result.problems).toEqual([]);
      expect(result.found).toEqual(result.told);
      expect(result.told.length).toBeGreaterThan(500);
    },
  );

  it("rows deleted and written again, with free pages between", () => {
    const result = bothWays((database) => {
      database.exec(rpmSchema);
      const insert = database.prepare("INSERT INTO Packages (blob) VALUES (?)");
      for (let number = 0; number < 300; number += 1) insert.run(blobOf(number * 31, number));
      database.exec("DELETE FROM Packages WHERE hnum % 3 = 0");
      for (let number = 0; number < 50; number += 1) insert.run(blobOf(number * 101, number));
      database.exec("DELETE FROM Packages WHERE hnum > 310 AND hnum < 320");
    });
    expect(result.problems).toEqual([]);
    expect(result.found).toEqual(result.told);
  });

  it("rows that are only in the log, over others of an older run of it", () => {
    const result = bothWays((database) => {
      database.exec("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0");
      database.exec(rpmSchema);
      const insert = database.prepare("INSERT INTO Packages (blob) VALUES (?)");
      for (let number = 0; number < 200; number += 1) insert.run(blobOf(5000, number));
      database.exec("PRAGMA wal_checkpoint(RESTART)");
      insert.run(blobOf(9000, 1));
      database.exec("UPDATE Packages SET blob = zeroblob(77) WHERE hnum = 5");
    });
    expect(result.problems).toEqual([]);
    expect(result.found).toEqual(result.told);
    expect(result.told).toHaveLength(201);
  });

  it("a transaction in the log that was not committed does not count", () => {
    const { file, wal } = sqliteFiles((database) => {
      database.exec("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=1");
      database.exec(rpmSchema);
      database.exec("INSERT INTO Packages (blob) VALUES (x'01')");
      // Too much for the cache: frames are written before the commit that never comes.
      database.exec(
        "BEGIN; INSERT INTO Packages (blob) VALUES (zeroblob(300000)); INSERT INTO Packages (blob) VALUES (zeroblob(300000))",
      );
    });
    expect(wal?.length).toBeGreaterThan(300_000);
    expect(read(file, wal)).toEqual({ rows: [[null, Buffer.from([1])]], problems: [] });
  });

  it("without its log a database in WAL mode has what it had before", () => {
    const { file, wal } = sqliteFiles((database) => {
      database.exec(`PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; ${rpmSchema}`);
      database.exec("INSERT INTO Packages (blob) VALUES (x'01'); PRAGMA wal_checkpoint(TRUNCATE)");
      database.exec("INSERT INTO Packages (blob) VALUES (x'02')");
    });
    expect(read(file)).toMatchObject({ rows: [[null, Buffer.from([1])]] });
    expect(read(file, wal)).toMatchObject({
      rows: [
        [null, Buffer.from([1])],
        [null, Buffer.from([2])],
      ],
    });
    expect(read(file, Buffer.alloc(0))).toMatchObject({ rows: [[null, Buffer.from([1])]] });
  });

  it("a log that is cut off or has a wrong byte counts up to there", () => {
    const { file, wal = Buffer.alloc(0) } = sqliteFiles((database) => {
      database.exec(`PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; ${rpmSchema}`);
      for (let number = 1; number <= 5; number += 1)
        database.exec(`INSERT INTO Packages (blob) VALUES (x'0${number}')`);
    });
    const rows = (log: Buffer) => {
      const result = read(file, log);
      return typeof result === "string" ? result : result.rows.length;
    };
    expect(rows(wal)).toBe(5);
    expect(rows(wal.subarray(0, wal.length - 1))).toBe(4);
    const wrong = Buffer.from(wal);
    wrong[wal.length - 100] = 0xff;
    expect(rows(wrong)).toBe(4);
    const otherSalt = Buffer.from(wal);
    otherSalt[16] = (otherSalt[16] ?? 0) ^ 1;
    expect(rows(otherSalt)).toBe("there is no table Packages");
  });

  it("any blobs at any page size (property)", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(512, 1024, 4096, 65536),
        fc.array(fc.tuple(fc.nat(20_000), fc.nat(255)), { maxLength: 40 }),
        fc.boolean(),
        (pageSize, blobs, isWal) => {
          const result = bothWays((database) => {
            database.exec(`PRAGMA page_size=${pageSize}`);
            if (isWal) database.exec("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0");
            database.exec(rpmSchema);
            const insert = database.prepare("INSERT INTO Packages (blob) VALUES (?)");
            for (const [length, seed] of blobs) insert.run(blobOf(length, seed));
          });
          expect(result.problems).toEqual([]);
          expect(result.found).toEqual(result.told);
        },
      ),
      { numRuns: 30 },
    );
  });

  it("values of every kind", () => {
    const { file } = sqliteFiles((database) => {
      database.exec("CREATE TABLE Packages (a, b, c, d, e, f, g, h, i)");
      database.exec("INSERT INTO Packages VALUES (NULL, 0, 1, -2, 300, -70000, 1099511627776, 1.5, 'é')");
    });
    expect(read(file)).toEqual({ rows: [[null, 0, 1, -2, 300, -70000, 1099511627776, 1.5, "é"]], problems: [] });
  });
});

describe("what is no table of packages is refused", () => {
  it.each([
    [
      "CREATE TABLE x (a, b); CREATE VIEW Packages AS SELECT a AS hnum, b AS blob FROM x",
      "Packages is a view, not a table",
    ],
    ["CREATE VIRTUAL TABLE Packages USING fts5(blob)", "Packages is a virtual table"],
    ["CREATE TABLE other (a)", "there is no table Packages"],
  ])("%s", (schema, message) => {
    expect(read(sqliteFiles((database) => database.exec(schema)).file)).toBe(message);
  });

  it("a table without row ids is no b-tree of records", () => {
    const { file } = sqliteFiles((database) => {
      database.exec("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB) WITHOUT ROWID");
      database.exec("INSERT INTO Packages VALUES (1, x'00')");
    });
    expect(read(file)).toEqual({ rows: [], problems: ["page 2 is not a page of a table"] });
  });

  it("text in UTF-16, other files, and a few bytes", () => {
    const utf16 = sqliteFiles((database) => database.exec(`PRAGMA encoding='UTF-16'; ${rpmSchema}`)).file;
    expect(read(utf16)).toBe("text is not in UTF-8");
    expect(read(Buffer.alloc(200))).toBe("not an SQLite database");
    expect(read(Buffer.from("SQLite format 3\0"))).toBe("not an SQLite database");
  });
});

describe("hostile pages", () => {
  const PAGE = 512;
  /** A database of 512-byte pages whose table has `blobs`; `damage` changes its bytes. */
  function damaged(count: number, damage: (file: Buffer, root: number) => void): ReturnType<typeof read> {
    const { file } = sqliteFiles((database) => {
      database.exec(`PRAGMA page_size=${PAGE}; ${rpmSchema}`);
      const insert = database.prepare("INSERT INTO Packages (blob) VALUES (?)");
      for (let number = 0; number < count; number += 1) insert.run(blobOf(300, number));
    });
    const pages = openSqlite(file, undefined);
    const root = typeof pages === "string" ? pages : findTable(pages, "Packages", new ProblemList("db"));
    if (typeof root === "string") throw new Error(root);
    damage(file, (root - 1) * PAGE);
    return read(file);
  }

  it("an interior page that leads to itself ends", () => {
    const result = damaged(50, (file, root) => {
      expect(file[root]).toBe(5);
      file.writeUInt32BE(root / PAGE + 1, root + 8);
    });
    expect(result).toMatchObject({
      problems: [`page 3 is missing or used twice`].map(() => expect.stringContaining("used twice")),
    });
  });

  it("a leaf whose pointers all lead to one record gives no more than a page", () => {
    const result = damaged(1, (file, root) => {
      expect(file[root]).toBe(13);
      const cell = file.readUInt16BE(root + 8);
      file.writeUInt16BE(80, root + 3);
      for (let at = 0; at < 80; at += 1) file.writeUInt16BE(cell, root + 8 + at * 2);
    });
    expect(result).toMatchObject({ rows: [[null, blobOf(300, 0)]] });
  });

  it("a record of exabytes costs that record", () => {
    const result = damaged(1, (file, root) => {
      Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).copy(
        file,
        root + file.readUInt16BE(root + 8),
      );
    });
    expect(result).toEqual({ rows: [], problems: [expect.stringMatching(/^a record on page \d+ is damaged$/)] });
  });

  it("more cells than the page has room for", () => {
    const result = damaged(1, (file, root) => file.writeUInt16BE(60_000, root + 3));
    expect(result).toEqual({ rows: [], problems: [expect.stringContaining("more cells than room")] });
  });

  it("overflow pages in a circle cost the record", () => {
    const { file } = sqliteFiles((database) => {
      database.exec(
        `PRAGMA page_size=${PAGE}; ${rpmSchema}; INSERT INTO Packages (blob) VALUES (zeroblob(3000)), (x'05')`,
      );
    });
    // The last pages are the overflow chain: each begins with the number of the next.
    const count = file.length / PAGE;
    for (let page = count - 5; page < count; page += 1) file.writeUInt32BE(count - 2, page * PAGE);
    expect(read(file)).toEqual({ rows: [[null, Buffer.from([5])]], problems: [expect.stringContaining("damaged")] });
  });
});
