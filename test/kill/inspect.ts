/** What must hold of a data directory after its command, its server or both were killed. */
import { sql } from "kysely";
import { type Application, openApplication } from "../../src/app/index.ts";
import { defaultConfiguration, defaultLimits, readEnvironment } from "../../src/config/index.ts";
import { type Database, openDatabase } from "../../src/db/index.ts";
import { isCode } from "../../src/errors/index.ts";
import { DatabaseDriver } from "../../src/objects/drivers/db/index.ts";
import { openObjectStore } from "../../src/objects/index.ts";
import { createCall, silentProgress } from "../../src/runtime/index.ts";
import { sectionsOf } from "../objects/sections.ts";

const call = createCall();
const packageTypes = ["apk", "dpkg", "rpm", "npm", "python"] as const;

/** All that a user can see of the image, as JSON. */
export interface Content {
  readonly image: string;
  readonly files: string;
  readonly packages: string;
}

export interface Aftermath {
  /** Whether the image was there before it was analysed again. */
  readonly wasThere: boolean;
  /** Layers whose documents were there. */
  readonly layers: number;
  readonly violations: readonly string[];
}

/** Analyses the image, for the first time or again, and reads it. */
export async function analyzeAndRead(
  dataDirectory: string,
  source: string,
  temporaryDirectory: string,
): Promise<Content> {
  await using application = await open(dataDirectory, temporaryDirectory);
  const { digest } = await application.analyze(source, { insecure: false, progress: silentProgress }, call);
  return await readContent(application, digest);
}

/** Opens what was left, looks at it, analyses again, and looks for anything lost or left over. */
export async function inspect(
  dataDirectory: string,
  source: string,
  temporaryDirectory: string,
  undisturbed: Content,
): Promise<Aftermath> {
  const violations: string[] = [];
  const expectSame = (when: string, content: Content) => {
    for (const part of ["image", "files", "packages"] as const) {
      if (content[part] !== undisturbed[part])
        violations.push(`${when}: ${part} differ from those of an undisturbed run`);
    }
  };
  await using application = await open(dataDirectory, temporaryDirectory);
  await using database = await openDatabase({ kind: "embedded", dataDirectory }, {}, call);
  const { digest } = JSON.parse(undisturbed.image) as { digest: string };

  const wasThere = await isThere(application, digest);
  if (wasThere) expectSame("after the kill", await readContent(application, digest));
  else violations.push(...(await tracesOfImage(database, digest)));

  const layers = await database.sql.selectFrom("layer_documents").select("layer_key").execute();
  const report = await application.analyze(source, { insecure: false, progress: silentProgress }, call);
  if (wasThere && !report.wasKnown) violations.push("an image that was there was analysed once more");
  violations.push(...(await orphans(database)));
  await reapEverything(database);
  violations.push(...(await orphans(database)), ...(await leftovers(database)));
  expectSame("after a second analysis and the reaper", await readContent(application, digest));
  return { wasThere, layers: layers.length, violations };
}

/** A data directory with a cluster and its tables, and nothing in them. */
export async function prepare(dataDirectory: string, temporaryDirectory: string): Promise<void> {
  await using _application = await open(dataDirectory, temporaryDirectory);
}

function open(dataDirectory: string, temporaryDirectory: string): Promise<Application> {
  const { credentials } = readEnvironment({});
  return openApplication(
    {
      purpose: "test",
      configuration: defaultConfiguration,
      database: { kind: "embedded", dataDirectory },
      limits: defaultLimits,
      temporaryDirectory,
      credentials,
    },
    call,
  );
}

async function isThere(application: Application, digest: string): Promise<boolean> {
  try {
    await application.getImage(digest, call);
    return true;
  } catch (error) {
    if (isCode(error, "IMAGE_NOT_FOUND")) return false;
    throw error;
  }
}

async function readContent(application: Application, digest: string): Promise<Content> {
  const { analyzedAt: _, ...image } = await application.getImage(digest, call);
  const files: unknown[] = [];
  for await (const file of (await application.filesOf(digest, call)).items) files.push(file);
  const packages: unknown[] = [];
  for await (const { files: owned, ...record } of (await application.packagesOf(digest, packageTypes, call)).items) {
    const list: unknown[] = [];
    if (owned) for await (const file of owned) list.push(file);
    packages.push({ ...record, files: list });
  }
  return { image: JSON.stringify(image), files: JSON.stringify(files), packages: JSON.stringify(packages) };
}

/** An image that is not there is not there in any table. */
async function tracesOfImage(database: Database, digest: string): Promise<string[]> {
  return counted(database, {
    "a tag without its image": sql`select 1 from image_tags`,
    "layers without their image": sql`select 1 from image_layers`,
    "documents of an image that is not there": sql`select 1 from objects where key = ${digest}`,
  });
}

/** What must be true at any time. */
function orphans(database: Database): Promise<string[]> {
  return counted(database, {
    "a blob without a location": sql`
      select 1 from object_blobs where not exists (select 1 from locations l where l.physical_key = object_blobs.physical_key)`,
    "chunks without a location": sql`
      select 1 from object_chunks where not exists (select 1 from locations l where l.physical_key = object_chunks.physical_key)`,
    "a pointer to a location that is not live": sql`
      select 1 from objects o join locations l on l.id = o.location_id where l.state <> 'live'`,
    "a live location without a pointer": sql`
      select 1 from locations l where l.state = 'live' and not exists (select 1 from objects o where o.location_id = l.id)`,
    "a live location without all its bytes": sql`
      select 1 from locations l where l.state = 'live' and l.stored_bytes is distinct from (
        select sum(length(c.bytes)) + b.bytes - b.bytes from object_blobs b left join object_chunks c using (physical_key)
        where b.physical_key = l.physical_key and b.bytes = l.stored_bytes group by b.bytes)`,
    "a live location with other bytes": sql`
      select 1 from locations l where l.state = 'live' and l.stored_digest <> (
        select 'sha256:' || encode(sha256(string_agg(c.bytes, ''::bytea order by c.position)), 'hex')
        from object_chunks c where c.physical_key = l.physical_key)`,
    "a layer document without its object": sql`
      select 1 from layer_documents d where not exists (select 1 from objects o where o.bucket = 'layer_data' and o.key = d.layer_key)`,
    "an object of a layer without its row": sql`
      select 1 from objects o where o.bucket = 'layer_data' and not exists (select 1 from layer_documents d where d.layer_key = o.key)`,
    "an image's layer without its document": sql`
      select 1 from image_layers i where i.layer_key is not null and not exists (select 1 from layer_documents d where d.layer_key = i.layer_key)`,
  });
}

/** What must be true once every lease has ended and the reaper has done all it can. */
function leftovers(database: Database): Promise<string[]> {
  return counted(database, {
    "a location that no reaper removes": sql`select 1 from locations where state <> 'live'`,
    "chunks without a blob": sql`
      select 1 from object_chunks where not exists (select 1 from object_blobs b where b.physical_key = object_chunks.physical_key)`,
    "bytes that no reaper removes": sql`
      select 1 from object_blobs where not exists (
        select 1 from locations l join objects o on o.location_id = l.id where l.physical_key = object_blobs.physical_key)`,
  });
}

async function reapEverything(database: Database): Promise<void> {
  await sql`update locations set lease_until = now() - interval '1 second' where state = 'pending'`.execute(
    database.sql,
  );
  const driver = new DatabaseDriver(database);
  const store = await openObjectStore({
    database,
    sections: sectionsOf(driver),
    retireGraceSeconds: 0,
    lateSeconds: 0,
  });
  while ((await store.reap(10, call)).isMoreLeft) {
    // until nothing is left
  }
}

async function counted(
  database: Database,
  queries: Readonly<Record<string, ReturnType<typeof sql>>>,
): Promise<string[]> {
  const found: string[] = [];
  for (const [what, query] of Object.entries(queries)) {
    const { rows } = await query.execute(database.sql);
    if (rows.length > 0) found.push(`${what} (${rows.length})`);
  }
  return found;
}
