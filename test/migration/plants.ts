// biome-ignore-all lint/suspicious/noTemplateCurlyInString: what is replaced is source text
/** Bugs that are planted into the product to see that the simulation finds them. A change that no longer fits its source fails aloud. */
export interface Plant {
  readonly name: string;
  readonly changes: readonly {
    /** Below `src`. */
    readonly file: string;
    /** Stands there exactly once. */
    readonly from: string;
    readonly to: string;
  }[];
}

const mover = "migration/mover.ts";
const migrations = "migration/migrations.ts";
const copies = "objects/rows/copies.ts";

const plants: readonly Plant[] = [
  {
    name: "the pointer is moved before the copy is read back",
    changes: [
      {
        file: mover,
        from: `await this.#pace.watch("verifying", () => this.#copies.verify(copy, this.#options.verify, ahead, this.#call));`,
        to: "void copy;",
      },
    ],
  },
  {
    name: "the source is deleted before the switch is committed",
    changes: [
      {
        file: mover,
        from: `const switched = await this.#transaction(async (tx) => {
      const moved`,
        to: `await this.#database.sql.updateTable("locations").set({ state: "retired" })
        .where("id", "in", pairs.map((pair) => pair.sourceLocationId)).where("state", "=", "live").execute();
      await this.#copies.deleteAtOnce(pairs.map((pair) => pair.sourceLocationId), this.#call);
      const switched = await this.#transaction(async (tx) => {
      const moved`,
      },
    ],
  },
  {
    name: "complete with failures",
    changes: [
      {
        file: migrations,
        from: 'const ended = isAllKnown && left === 0 ? "complete" : "incomplete";',
        to: 'const ended = isAllKnown && left >= 0 ? "complete" : "incomplete";',
      },
    ],
  },
  {
    name: "the reaper takes what a migration holds",
    changes: [{ file: "objects/rows/reaper.ts", from: 'eb("migration_id", "is", null),', to: "" }],
  },
  {
    name: "a copy of an earlier life is taken for whole",
    changes: [
      {
        file: mover,
        from: "  async #copy(moves: readonly Move[], share: Share): Promise<void> {\n",
        to: `  async #copy(all: readonly Move[], share: Share): Promise<void> {
    const begun = all.filter((move) => move.destinationLocationId !== undefined);
    const moves = all.filter((move) => move.destinationLocationId === undefined);
    const sourcesOfBegun = await this.#copies.located(begun.map((move) => move.sourceLocationId));
    const taken = begun.filter((move) => sourcesOfBegun.has(move.sourceLocationId));
    await this.#transaction(async (tx) => {
      await this.#copies.record(tx, taken.map((move) => ({
        locationId: move.destinationLocationId as number,
        written: sourcesOfBegun.get(move.sourceLocationId) as never,
      })));
      await advanceMoves(tx, this.#id, taken.map((move) => move.sourceLocationId), "planned", "verified");
    });
    await this.#switch(taken.map((move) => ({ ...move, state: "verified" as const })));
`,
      },
    ],
  },
  {
    name: "a copy that is begun again leaves the first one held",
    changes: [
      {
        file: mover,
        from: "await this.#copies.release(tx, defined(moves.map((move) => move.destinationLocationId)));",
        to: "void defined;",
      },
    ],
  },
  {
    name: "whoever was taken for dead goes on",
    changes: [
      { file: "migration/rows.ts", from: '    .where("lives", "=", life)\n', to: "" },
      {
        file: "migration/rows.ts",
        from: "  if (row !== undefined) return;",
        to: "  if (row !== undefined || life > 0) return;",
      },
    ],
  },
  {
    name: "an overwrite during the copy is lost",
    changes: [
      {
        file: copies,
        from: "where objects.location_id = pair.source\n",
        to: `where (objects.account, objects.bucket, objects.key) =
        (select account, bucket, object_key from locations where id = pair.copy)\n`,
      },
      {
        file: copies,
        from: "if (live.length !== moved.length || left.length !== moved.length) {",
        to: "if (live.length !== moved.length || left.length < 0) {",
      },
    ],
  },
  {
    name: "the pointer is moved to what was never proven",
    changes: [
      { file: copies, from: "        and stored_digest is not null)\n", to: ")\n" },
      {
        file: mover,
        from: "await this.#copies.record(tx, copied);",
        to: "void this.#copies.record;",
      },
    ],
  },
  {
    name: "sources are not retired",
    changes: [
      {
        file: copies,
        from: 'state = ${keepsSources ? "kept" : "retired"}',
        to: 'state = ${keepsSources ? "kept" : "live"}',
      },
    ],
  },
  {
    name: "sources that were to be kept are deleted",
    changes: [{ file: copies, from: 'state = ${keepsSources ? "kept" : "retired"}', to: "state = 'retired'" }],
  },
  {
    name: "a cancel forgets the copies",
    changes: [{ file: migrations, from: "await this.#copies.releaseAll(tx, id);", to: "" }],
  },
  {
    name: "what was mended at the source is forgotten",
    changes: [
      {
        file: migrations,
        from: "if ((await this.#moveAdded(record, self, mover, pace, done, call)) === 0) return true;",
        to: "return true;",
      },
    ],
  },
  {
    name: "writers are not waited for",
    changes: [
      {
        file: migrations,
        from: "if (added === 0 && writers === 0) break;",
        to: "if (added === 0 && writers >= 0) break;",
      },
    ],
  },
  {
    name: "new objects still go to the source",
    changes: [{ file: migrations, from: "await this.#copies.setRedirects(tx, id, redirects);", to: "void redirects;" }],
  },
  {
    name: "the digest of what is read back is not looked at",
    changes: [
      {
        file: "objects/verified-body.ts",
        from: "const isRight = actual === storedDigest;",
        to: 'const isRight = actual !== "";',
      },
      {
        file: "objects/verified-body.ts",
        from: "if (actual !== contentDigest) done",
        to: 'if (actual === "") done',
      },
      {
        file: "objects/verified-body.ts",
        from: "if (actual !== recorded.storedDigest) throw",
        to: 'if (actual === "") throw',
      },
      { file: "objects/verified-body.ts", from: "if (actual !== contentDigest) throw", to: 'if (actual === "") throw' },
    ],
  },
];

export const plantNames: readonly string[] = plants.map(({ name }) => name);

export function plantNamed(name: string): Plant {
  const plant = plants.find((each) => each.name === name);
  if (plant === undefined) throw new Error(`no such plant: ${name}`);
  return plant;
}
