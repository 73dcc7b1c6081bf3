/** Runs one race in a process of its own, where a bug may be planted: `node test/storm/race.ts BACKEND NAME`. Exits with 3 when the race finds something. */
import { startTestDatabase } from "../embedded-database.ts";
import { Arena, type Backend } from "./arena.ts";
import { runRace } from "./races.ts";

const [backend = "", name = ""] = process.argv.slice(2);
await using database = await startTestDatabase();
await using arena = await Arena.open(backend as Backend, database);
try {
  await runRace(name, arena);
} catch (error) {
  console.log(error);
  process.exitCode = 3;
}
