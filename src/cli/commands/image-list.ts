import type { ImageSummary } from "../../app/index.ts";
import { formatCount } from "../../runtime/index.ts";
import type { Context } from "../context.ts";
import { formatBytes, formatPackageCounts, formatTime, shortDigest } from "../format.ts";
import { writeJson } from "../json.ts";
import { printable } from "../printable.ts";
import { writeTable } from "../table.ts";

export async function imageList(context: Context): Promise<void> {
  await using application = await context.open();
  const images = application.listImages(context.call);
  if (context.format === "json") return await writeJson(context.output, { images });
  await writeTable(
    context.output,
    [
      { title: "DIGEST" },
      { title: "TAG" },
      { title: "STATE" },
      { title: "PLATFORM" },
      { title: "DISTRIBUTION", sacrifice: 1 },
      { title: "LAYERS", alignment: "right", sacrifice: 4 },
      { title: "FILES", alignment: "right", sacrifice: 5 },
      { title: "PACKAGES", sacrifice: 3 },
      { title: "SIZE", alignment: "right" },
      { title: "ANALYZED", sacrifice: 2 },
    ],
    rowsOf(images, context.output.columns !== undefined),
    context.colors.bold,
  );
}

async function* rowsOf(images: AsyncIterable<ImageSummary>, isTerminal: boolean): AsyncIterable<readonly string[]> {
  for await (const image of images) {
    yield [
      isTerminal ? shortDigest(image.digest) : image.digest,
      image.fullTags.length === 0 ? "-" : image.fullTags.map(printable).join(isTerminal ? "\n" : ", "),
      image.damage === undefined ? "analyzed" : "damaged",
      printable(image.platform),
      printable(image.distribution ?? "-"),
      formatCount(image.layers),
      formatCount(image.files),
      formatPackageCounts(image.packages),
      formatBytes(image.blobBytes),
      formatTime(image.analyzedAt),
    ];
  }
}
