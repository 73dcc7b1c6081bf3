import { parseArgs } from "node:util";
import { withScratch } from "../contender.ts";
import { describeMachine } from "../machine.ts";
import { Report } from "../report.ts";
import { buildStowage } from "../stowage.ts";
import { benchCache } from "./cache.ts";
import { benchFamily } from "./family.ts";
import { type Ground, openGround } from "./ground.ts";
import { benchMemory } from "./memory.ts";
import { benchRate } from "./rate.ts";
import { registryMissing } from "./registry.ts";
import { benchSaves } from "./saves.ts";

const sections = ["family", "rate", "cache", "saves", "memory"] as const;
type Section = (typeof sections)[number];
const usage = `usage: npm run bench -- layers [--images DIR] [--peers DIR:DIR…] [--runs N] [--scale X] [--only ${sections.join(",")}] [--markdown]`;

/**
 * `npm run bench -- layers`: what images that share layers cost the registry, the network and the processors; the layer cache's own cost; and memory over
 * many images in one process.
 */
export async function benchLayers(parameters: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...parameters],
    options: {
      images: { type: "string", default: process.env.STOWAGE_BENCH_IMAGES ?? "" },
      peers: { type: "string", default: process.env.STOWAGE_BENCH_PEERS ?? "" },
      runs: { type: "string", default: "5" },
      scale: { type: "string", default: "1" },
      only: { type: "string", default: sections.join(",") },
      markdown: { type: "boolean", default: false },
    },
  });
  const runs = Number(values.runs);
  const scale = Number(values.scale);
  const only = values.only.split(",");
  const areKnown = only.every((one) => sections.some((section) => section === one));
  if (!Number.isInteger(runs) || runs < 1 || !(scale > 0 && scale <= 1) || !areKnown) {
    console.error(usage);
    process.exitCode = 2;
    return;
  }
  buildStowage();
  const report = new Report(values.markdown);
  report.heading("layers");
  report.list(describeMachine(`npm run bench -- layers ${parameters.join(" ")}`));
  const { images } = values;
  const peers = values.peers.split(":").filter(Boolean);
  const pulling: Readonly<Record<Exclude<Section, "memory">, (ground: Ground) => Promise<void>>> = {
    family: (ground) => benchFamily(report, ground),
    rate: (ground) => benchRate(report, ground, { peers, runs: Math.min(runs, 3), scale }),
    cache: (ground) => benchCache(report, ground, images, runs),
    saves: (ground) => benchSaves(report, ground, runs),
  };
  for (const section of sections) {
    if (!only.includes(section)) continue;
    if (section === "memory") {
      await benchMemory(report, scale);
      continue;
    }
    // A registry for each section: none finds what another has left.
    await withScratch(async (scratch) => {
      await using ground = await openGround(images, scale, scratch);
      if (ground === undefined) report.leftOut(`${section}: ${registryMissing}`);
      else await pulling[section](ground);
    });
  }
  report.goals();
}
