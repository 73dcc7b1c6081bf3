import { randomUUID } from "node:crypto";
import { Readable } from "node:stream";
import type { Database } from "../db/index.ts";
import { isCode, StowageError } from "../errors/index.ts";
import { announce, type Call } from "../runtime/index.ts";
import type { ObjectDriver, PhysicalKey } from "./driver.ts";
import { type BackendRow, intendMarker, readBackends, readInstallation, recordMarker } from "./rows/backends.ts";
import { collect } from "./short-bytes.ts";

/**
 * A shared backend says whose it is by a marker object, so that a service on a new, a second or a restored database can't remove or overwrite what
 * another one keeps there. Markers are numbered and never overwritten: whoever claims a backend writes the next one, and all who hold an
 * older one find theirs gone.
 *
 * | step | durable | a crash leaves | then |
 * |---|---|---|---|
 * | intend | the next token, in the backend's row | nothing at the backend | the same token is written |
 * | write | the marker with that token | a marker that the row does not name yet | it is found and has the intended token: recorded |
 * | record | generation and token, in the row | the marker before it, when a backend was claimed | the next claim deletes it |
 */
interface Marker {
  readonly installation: string;
  /** The backend's own name in that installation. */
  readonly backend: string;
  readonly token: string;
}

const generationDigits = 8;
const zeros = "0".repeat(32 - generationDigits);
const markerBytesMax = 4096;

/** Physical keys are random: 96 zero bits are no accident. */
export function isMarkerKey(key: PhysicalKey): boolean {
  return key.startsWith(zeros);
}

function markerKey(generation: number): PhysicalKey {
  return (zeros + generation.toString(16).padStart(generationDigits, "0")) as PhysicalKey;
}

export interface Place {
  readonly database: Database;
  readonly installation: string;
  readonly row: BackendRow;
  readonly driver: ObjectDriver;
  /** For people. */
  readonly description: string;
}

/** The newest marker at the place and its number, whoever wrote it. */
async function findMarker(
  driver: ObjectDriver,
  call: Call,
): Promise<{ marker: Marker; generation: number } | undefined> {
  let newest: PhysicalKey | undefined;
  for await (const { key } of driver.list(undefined, call)) {
    if (!isMarkerKey(key)) break;
    newest = key;
  }
  if (newest === undefined) return undefined;
  const marker = await readMarker(driver, newest, call);
  return marker && { marker, generation: Number.parseInt(newest.slice(zeros.length), 16) };
}

async function readMarker(driver: ObjectDriver, key: PhysicalKey, call: Call): Promise<Marker | undefined> {
  try {
    const bytes = await collect(await driver.get(key, { first: 0, last: markerBytesMax - 1 }, call), markerBytesMax);
    // Whatever a stranger may have put there, `null` too, has fields or none.
    const { installation, backend, token } = Object(JSON.parse(bytes.toString())) as Record<string, unknown>;
    return { installation: String(installation), backend: String(backend), token: String(token) };
  } catch (error) {
    if (isCode(error, "BACKEND_KEY_MISSING")) return undefined;
    if (error instanceof SyntaxError) return { installation: "not readable", backend: "", token: "" };
    throw error;
  }
}

/**
 * Makes sure that the backend is this installation's, and says so there when nobody has yet.
 * Returns the mark of the backend that it really is, which is another than the row's when the same place was registered under another address.
 *
 * @throws StowageError `BACKEND_FOREIGN`
 */
export async function checkMarker(place: Place, call: Call): Promise<string> {
  const { row, driver, installation } = place;
  if (row.generation > 0) {
    const marker = await readMarker(driver, markerKey(row.generation), call);
    if (marker?.token === row.token) return row.mark;
    // Another process of ours may be claiming it: its marker is there before the row says so.
    const newer = await findMarker(driver, call);
    if (newer !== undefined && newer.marker.token === row.nextToken) return row.mark;
    throw foreign(place, newer?.marker);
  }
  const found = await findMarker(driver, call);
  if (found === undefined) return await writeMarker(place, 1, call);
  if (found.marker.installation !== installation) throw foreign(place, found.marker);
  if (found.marker.backend !== row.mark) return found.marker.backend;
  if (found.marker.token !== row.nextToken) throw foreign(place, found.marker);
  await recordMarker(place.database, row.id, found.generation, found.marker.token);
  return row.mark;
}

/** The mark of our own backend that the newest marker at the place names, if one does; nothing is written. */
export async function findOwnMark(driver: ObjectDriver, installation: string, call: Call): Promise<string | undefined> {
  const found = await findMarker(driver, call);
  return found?.marker.installation === installation ? found.marker.backend : undefined;
}

/**
 * The mark of the backend that the place is known as; `undefined` where nobody has marked it yet. Nothing is written.
 * @throws StowageError `BACKEND_FOREIGN` when it is another installation's
 */
export async function findMark(place: Place, call: Call): Promise<string | undefined> {
  const found = await findMarker(place.driver, call);
  if (found !== undefined && found.marker.installation !== place.installation) throw foreign(place, found.marker);
  return found?.marker.backend;
}

/**
 * Whose the place is, in words; nothing is written.
 * @throws StowageError `BACKEND_FOREIGN` when this database may not write there
 */
export async function describeOwner(
  database: Database,
  driver: ObjectDriver,
  description: string,
  call: Call,
): Promise<string> {
  if (!(await driver.capabilities(call)).isShared) return "this database's own";
  const found = await findMarker(driver, call);
  if (found === undefined) return "nobody's yet: no marker";
  const { id, identity, recordedIdentity } = await readInstallation(database);
  const { marker } = found;
  const row = (await readBackends(database)).find(({ mark }) => mark === marker.backend);
  const isOurs = marker.installation === id && (marker.token === row?.token || marker.token === row?.nextToken);
  if (!isOurs) throw foreign({ driver, description, installation: id }, marker);
  const isCopy = recordedIdentity !== undefined && recordedIdentity !== identity;
  // What a copy's rows call garbage may be visible in the original.
  const remark = isCopy ? ", whose database was moved or restored: nothing is deleted there before a claim" : "";
  return `this installation's: ${id}${remark}`;
}

/** Makes the backend this database's, and no other copy's of it. */
export async function claimMarker(place: Place, call: Call): Promise<void> {
  const found = await findMarker(place.driver, call);
  if (found !== undefined && found.marker.installation !== place.installation) throw foreign(place, found.marker);
  const generation = Math.max(place.row.generation, found?.generation ?? 0);
  await writeMarker({ ...place, row: { ...place.row, generation } }, generation + 1, call);
  for (let old = generation; old > 0 && old > generation - 3; old--) await place.driver.delete(markerKey(old), call);
}

async function writeMarker(place: Place, generation: number, call: Call): Promise<string> {
  const { database, driver, row, installation } = place;
  const key = markerKey(generation);
  const token = await intendMarker(database, row.id, row.generation, randomUUID());
  if (token === undefined) throw foreign(place, (await findMarker(driver, call))?.marker);
  announce("objects marker intended", { backendId: row.id });
  const marker: Marker = { installation, backend: row.mark, token };
  const about = "This place holds objects of a stowage installation. Removing or changing anything here loses them.";
  const bytes = Buffer.from(`${JSON.stringify({ about, ...marker }, undefined, 2)}\n`);
  try {
    await driver.put(key, { open: async () => Readable.from([bytes]), sizeBytes: bytes.length }, call);
  } catch (error) {
    // Another process may have been faster, or this one, in an earlier life.
    if (!isCode(error, "BACKEND_KEY_EXISTS")) throw error;
  }
  const written = await readMarker(driver, key, call);
  if (written?.token !== token) throw foreign(place, written);
  announce("objects marker written", { backendId: row.id });
  await recordMarker(database, row.id, generation, token);
  return row.mark;
}

function foreign(
  { driver, description, installation }: Pick<Place, "driver" | "description" | "installation">,
  found: Marker | undefined,
): StowageError {
  const isOurs = found?.installation === installation;
  return new StowageError(
    "BACKEND_FOREIGN",
    {
      driver: driver.name,
      place: description,
      found: found === undefined ? "no marker" : isOurs ? "a later claim of the same installation" : found.installation,
      expected: installation,
    },
    {
      hint:
        found === undefined || isOurs
          ? "nothing is written or removed there; if this database is the right one, run: stowage objectstorage claim"
          : "nothing is written or removed there; name another bucket, container, prefix or directory in the configuration",
    },
  );
}
