/**
 * Loaded before anything else (`node --import`): plants the bug that `MIGRATION_PLANT` names into the sources as they are loaded. Nothing on disk
 * changes.
 */
import { registerHooks } from "node:module";
import { plantNamed } from "./plants.ts";

const plant = plantNamed(process.env.MIGRATION_PLANT ?? "");

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    const changes = plant.changes.filter(({ file }) => url.endsWith(`/src/${file}`));
    if (changes.length === 0) return loaded;
    let source = String(loaded.source);
    for (const { file, from, to } of changes) {
      // A bug that can't be planted any more would prove nothing.
      if (source.split(from).length !== 2) throw new Error(`${plant.name}: ${file} has not exactly one ${from}`);
      source = source.replace(from, () => to);
    }
    return { ...loaded, source };
  },
});
