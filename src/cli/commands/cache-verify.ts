import { StowageError } from "../../errors/index.ts";
import type { CacheVerification } from "../../layercache/index.ts";
import { formatCount, plural } from "../../runtime/index.ts";
import { writeNoCache } from "../cache-absence.ts";
import type { Context } from "../context.ts";
import { formatBytes } from "../format.ts";
import { writeJson } from "../json.ts";
import { printable } from "../printable.ts";

/** What `cache verify` prints. */
export interface CacheCheck extends CacheVerification {
  readonly directory: string;
  readonly isThere: boolean;
}

const nothing: CacheVerification = { entries: 0, bytes: 0, damaged: [], foreign: [] };

/** How many foreign paths a person is shown. */
const FOREIGN_MAX = 20;

export async function cacheVerify(context: Context): Promise<void> {
  await using found = await context.findLayerCache();
  const { directory, cache } = found;
  const progress = await context.startProgress();
  const verification = (await cache?.verify(progress, context.call)) ?? nothing;
  context[Symbol.dispose]();
  if (context.format === "json") {
    const check: CacheCheck = { directory, isThere: cache !== undefined, ...verification };
    await writeJson(context.output, check);
  } else if (cache === undefined) await writeNoCache(context, found);
  else await writeVerification(context, verification);
  const { damaged } = verification;
  if (damaged.length === 0) return;
  throw new StowageError(
    "LAYER_CACHE_DAMAGED",
    { directory, entries: damaged.length },
    { hint: "an analysis that needs one fetches it again; if it happens again, look at the disk" },
  );
}

async function writeVerification(context: Context, { entries, bytes, damaged, foreign }: CacheVerification) {
  const { output, colors } = context;
  await output.write(`read ${plural(entries, "layer")}, ${formatBytes(bytes)}: `);
  await output.write(
    damaged.length === 0 ? "all are what they should be\n" : `${formatCount(damaged.length)} damaged\n`,
  );
  for (const { digest, reason } of damaged) {
    await output.write(`${colors.red("dropped:")} ${digest}: ${printable(reason)}\n`);
  }
  for (const path of foreign.slice(0, FOREIGN_MAX)) {
    await output.write(`${colors.yellow("not the cache's:")} ${printable(path)}\n`);
  }
  if (foreign.length > FOREIGN_MAX) await output.write(`and ${formatCount(foreign.length - FOREIGN_MAX)} more\n`);
  await output.flush();
}
