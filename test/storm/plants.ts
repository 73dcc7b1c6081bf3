/** Bugs that are planted to see that the tests find them. A change that no longer fits its source fails aloud. */
export interface Plant {
  readonly name: string;
  readonly changes: readonly {
    /** Below `src/objects`. */
    readonly file: string;
    /** Stands there exactly once. */
    readonly from: string;
    readonly to: string;
  }[];
}

const plants: readonly Plant[] = [
  {
    name: "the intent after the bytes",
    changes: [
      {
        file: "object-store.ts",
        from: `const locationId = await insertPending(this.#database, location, this.#leaseSeconds);
    announce("objects intended", { locationId });`,
        to: "let locationId = 0;",
      },
      {
        file: "object-store.ts",
        from: `announce("objects stored", { locationId });`,
        to: `announce("objects stored", { locationId });
      locationId = await insertPending(this.#database, location, this.#leaseSeconds);
      announce("objects intended", { locationId });`,
      },
    ],
  },
  {
    name: "visible without a proof",
    changes: [
      {
        file: "object-store.ts",
        from: "await prove(driver, physicalKey, stored, written(), lease.call);",
        to: "",
      },
    ],
  },
  {
    name: "the proof before the bytes",
    changes: [
      {
        file: "object-store.ts",
        from: "const stored = await driver.put(physicalKey, source, lease.call);",
        to: `for await (const _ of await source.open(lease.call)) {}
      await recordProof(this.#database, locationId, written(), this.#leaseSeconds);
      const published = this.#database.transaction((tx) => this.publish(tx, [{ ref, locationId, ...written() }]), call);
      await published;
      const stored = await driver.put(physicalKey, source, lease.call);`,
      },
      {
        file: "object-store.ts",
        from: `if (!(await recordProof(this.#database, locationId, written(), this.#leaseSeconds))) throw leaseLost(ref);`,
        to: "",
      },
    ],
  },
  {
    name: "visible in another transaction than the caller's",
    changes: [
      {
        file: "object-store.ts",
        from: "const version = await publishLocation(tx, ref, locationId);",
        to: `const version = await publishLocation({ sql: this.#database.sql as never, call: tx.call }, ref, locationId);
      announce("planted");`,
      },
    ],
  },
  {
    name: "live before its pointer, in another transaction",
    changes: [
      {
        file: "object-store.ts",
        from: "const version = await publishLocation(tx, ref, locationId);",
        to: `await this.#database.sql.updateTable("locations").set({ state: "live" }).where("id", "=", locationId).execute();
      announce("planted");
      const version = await publishLocation(tx, ref, locationId);`,
      },
      {
        file: "rows/locations.ts",
        from: "(state = 'pending' and stored_digest",
        to: "(stored_digest",
      },
    ],
  },
  {
    name: "nothing retired when the pointer moves",
    changes: [{ file: "rows/locations.ts", from: "await retireLocation(tx, rows[0].before);", to: "" }],
  },
  {
    name: "retired before the pointer moves, in another transaction",
    changes: [
      {
        file: "object-store.ts",
        from: "const version = await publishLocation(tx, ref, locationId);",
        to: `await this.#database.sql.updateTable("locations").set({ state: "retired" })
        .where("account", "=", ref.account).where("bucket", "=", ref.bucket).where("object_key", "=", ref.key)
        .where("state", "=", "live").execute();
      announce("planted");
      const version = await publishLocation(tx, ref, locationId);`,
      },
      {
        file: "rows/locations.ts",
        from: "if (result.numUpdatedRows !== 1n) throw new TypeError(`location ${id} had a pointer and was not live`);",
        to: "void result;",
      },
    ],
  },
  {
    name: "no grace for readers",
    changes: [
      {
        file: "rows/reaper.ts",
        from: `eb("state", "=", "retired"), eb("state_since", "<=", ago(graceSeconds))`,
        to: `eb("state", "=", "retired"), eb("state_since", "<=", ago(graceSeconds * 0))`,
      },
    ],
  },
  {
    name: "no lease for writers",
    changes: [{ file: "rows/reaper.ts", from: `eb("lease_until", "<", sql<Date>\`now()\`),`, to: "" }],
  },
  {
    name: "published whatever its state is",
    changes: [
      {
        file: "rows/locations.ts",
        from: "(state = 'pending' and stored_digest is not null and lease_until > now())",
        to: "(stored_digest is not null)",
      },
    ],
  },
  {
    name: "a lease renewed whatever the state is",
    changes: [
      {
        file: "rows/locations.ts",
        from: `.set({ lease_until: inSeconds(leaseSeconds) })
    .where("id", "=", id)
    .where("state", "=", "pending")`,
        to: `.set({ lease_until: inSeconds(leaseSeconds), state: "pending" })
    .where("id", "=", id)`,
      },
    ],
  },
  {
    name: "bytes deleted before that is decided",
    changes: [
      {
        file: "rows/reaper.ts",
        from: `.set({ state: "deleting", state_since: sql<string>\`now()\` })
    .where("id", "in", (query) =>`,
        to: `.set({ damage: null })
    .where("id", "in", (query) =>`,
      },
      {
        file: "rows/reaper.ts",
        from: `.where("state", "=", "deleting")
    .where(({ eb, or }) =>`,
        to: `.where(sql<boolean>\`(state = 'deleting' or state = 'retired' or (state = 'pending' and lease_until < now()))\`)
    .where(({ eb, or }) =>`,
      },
      {
        file: "reaper.ts",
        from: `announce("objects deleted", { locationId: id });`,
        to: `announce("objects deleted", { locationId: id });
  await database.sql.updateTable("locations").set({ state: "deleting" }).where("id", "=", id)
    .where("state", "in", ["pending", "retired"]).where((eb) => eb.or([eb("lease_until", "is", null), eb("lease_until", "<", new Date() as never)])).execute();`,
      },
    ],
  },
  {
    name: "the row removed before the bytes are gone",
    changes: [
      {
        file: "reaper.ts",
        from: `): Promise<boolean> {
  try {`,
        to: `): Promise<boolean> {
  if (!isUnsettled) await removeLocation(database, id);
  announce("planted");
  try {`,
      },
    ],
  },
  {
    name: "what can still arrive is deleted once",
    changes: [
      {
        file: "reaper.ts",
        from: "if (isUnsettled) await markDeletedOnce(database, id);",
        to: "if (isUnsettled && id < 0) await markDeletedOnce(database, id);",
      },
    ],
  },
  {
    name: "digests are not looked at",
    changes: [
      {
        file: "verified-body.ts",
        from: "done(actual === storedDigest ? null : new WrongBytes(`${actual} stored`));",
        to: "done(null);",
      },
      {
        file: "verified-body.ts",
        from: "done(actual === this.#recorded.contentDigest ? null : new WrongBytes(actual));",
        to: "done(null);",
      },
    ],
  },
  {
    name: "a stream may end too soon",
    changes: [
      {
        file: "verified-body.ts",
        from: "done(new WrongBytes(`${this.#digester.bytes} of ${storedBytes} stored bytes`, true));",
        to: "done(null);",
      },
      {
        file: "verified-body.ts",
        from: "done(actual === this.#recorded.contentDigest ? null : new WrongBytes(actual));",
        to: "done(null);",
      },
    ],
  },
  {
    name: "bytes that are gone have not moved",
    changes: [
      {
        file: "object-store.ts",
        from: "if (again.locationId !== version.locationId) return",
        to: "if (again.locationId < 0) return",
      },
    ],
  },
  {
    name: "a copy live before the pointer moves to it",
    changes: [
      {
        file: "object-store.ts",
        from: "if (!(await switchPointer(tx, version.ref, version.locationId, copy.locationId))) return false;",
        to: `if (!(await makeLive(tx, copy.locationId))) throw leaseLost(copy.ref);
    if (version !== undefined) return await switchPointer(tx, version.ref, version.locationId, copy.locationId);`,
      },
    ],
  },
  {
    name: "a marker without an intent",
    changes: [
      {
        file: "marker.ts",
        from: "const token = await intendMarker(database, row.id, row.generation, randomUUID());",
        to: "const token: string | undefined = randomUUID();",
      },
      {
        file: "marker.ts",
        from: `announce("objects marker written", { backendId: row.id });`,
        to: `announce("objects marker written", { backendId: row.id });
  await intendMarker(database, row.id, row.generation, token);`,
      },
    ],
  },
  {
    name: "a marker recorded before it is written",
    changes: [
      {
        file: "marker.ts",
        from: `announce("objects marker intended", { backendId: row.id });`,
        to: `await recordMarker(database, row.id, generation, token);
  announce("objects marker intended", { backendId: row.id });`,
      },
    ],
  },
  {
    name: "a scrub's place recorded before its findings",
    changes: [
      {
        file: "scrub.ts",
        from: "const waiting = batch.values();",
        to: `await recordScrubProgress(this.#database, this.#row.id, {
      backendId: backend.id,
      afterKey: batch.at(-1)?.key ?? "",
      objects: this.objects,
      bytes: this.bytes,
    });
    announce("planted");
    const waiting = batch.values();`,
      },
    ],
  },
];

export const plantNames: readonly string[] = plants.map(({ name }) => name);

export function plantNamed(name: string): Plant {
  const plant = plants.find((each) => each.name === name);
  if (plant === undefined) throw new Error(`no such plant: ${name}`);
  return plant;
}
