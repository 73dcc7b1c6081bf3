/**
 * A command that uses the embedded database, as tests need it in a process of its own: opens, says so on standard output as one line of JSON, closes
 * when standard input ends, and says that as well.
 *
 * Usage: node embedded-command.ts DATA_DIRECTORY [NATIVE_DIRECTORY]
 */
import { sql } from "kysely";
import { useEmbeddedServer } from "../src/db/embedded/index.ts";
import { tryConnection } from "../src/db/endpoint.ts";
import { openDatabase } from "../src/db/index.ts";
import { createCall } from "../src/runtime/index.ts";

const [dataDirectory = "", nativeDirectory] = process.argv.slice(2);
const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);
const call = createCall();

async function open(): Promise<AsyncDisposable> {
  if (nativeDirectory !== undefined) {
    const use = await useEmbeddedServer(dataDirectory, { program: () => ({ directory: nativeDirectory }) }, call);
    await tryConnection(use.endpoint);
    say({ event: "open" });
    return use;
  }
  const database = await openDatabase({ kind: "embedded", dataDirectory }, {}, call);
  const row = { layer_key: `of ${process.pid} ${Math.random()}`, diff_id: "d", fingerprint: "test" };
  await database.sql.insertInto("layer_documents").values(row).execute();
  const { rows } = await sql<{ started: string; rows: number }>`
    select pg_postmaster_start_time()::text as started, (select count(*) from layer_documents) as rows`.execute(
    database.sql,
  );
  say({ event: "open", ...rows[0] });
  process.stdin.on("data", () => {
    sql`select 1`.execute(database.sql).then(
      () => say({ event: "alive" }),
      (error: unknown) => say({ event: "dead", reason: String(error) }),
    );
  });
  return database;
}

try {
  const opened = await open();
  process.stdin.resume();
  await new Promise((resolve) => process.stdin.once("end", resolve));
  await opened[Symbol.asyncDispose]();
  say({ event: "closed" });
} catch (error) {
  const { code, message, hint } = error as { code?: string; message: string; hint?: string };
  say({ event: "failed", code, message, hint });
  process.exitCode = 1;
}
