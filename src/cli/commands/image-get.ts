import type { ImageDetails } from "../../app/index.ts";
import { formatCount, plural } from "../../runtime/index.ts";
import type { Context } from "../context.ts";
import { formatBytes, formatPackageCounts, formatTime, shortDigest } from "../format.ts";
import { writeJson } from "../json.ts";
import { printable } from "../printable.ts";
import { writeFields, writeTable } from "../table.ts";

export async function imageGet(context: Context, name: string): Promise<void> {
  await using application = await context.open();
  const image = await application.getImage(name, context.call);
  const { output, colors } = context;
  if (context.format === "json") return await writeJson(output, image);
  // Whole digests beside the rest need this much; a program gets them whole.
  const areDigestsShort = (output.columns ?? Number.POSITIVE_INFINITY) < 150;
  await writeFields(output, fieldsOf(image), colors.bold);
  await output.write("\n");
  await writeTable(
    output,
    [
      { title: "LAYER", alignment: "right" },
      { title: "BLOB" },
      { title: "SIZE", alignment: "right" },
      { title: "MEDIA TYPE", sacrifice: 1 },
    ],
    image.layerList.map((layer) => [
      String(layer.position),
      areDigestsShort ? shortDigest(layer.blobDigest) : layer.blobDigest,
      formatBytes(layer.blobBytes),
      printable(layer.mediaType) + (layer.isFetched ? "" : " (not fetched)"),
    ]),
    colors.bold,
  );
  if (image.suidFiles.length > 0) {
    await output.write("\n");
    await writeTable(
      output,
      [{ title: "MODE" }, { title: "SET-USER-ID OR SET-GROUP-ID FILE" }],
      image.suidFiles.map(({ path, mode }) => [mode, printable(path)]),
      colors.bold,
    );
  }
  if (image.notes.length > 0) {
    await output.write("\n");
    await writeTable(
      output,
      [{ title: "NOTE" }, { title: "LAYER", alignment: "right" }, { title: "PATH" }, { title: "MEANING" }],
      image.notes.map(({ code, layer, path, text }) => [
        printable(code),
        layer === undefined ? "-" : String(layer),
        printable(path),
        printable(text),
      ]),
      colors.bold,
    );
  }
  if (image.notesLeftOut > 0) {
    await output.write(`\n${plural(image.notesLeftOut, "more note")} not kept\n`);
    await output.flush();
  }
}

function fieldsOf(image: ImageDetails): readonly (readonly [string, string | undefined])[] {
  return [
    ["digest", image.digest],
    ["image id", image.imageId],
    ["parent", image.parentDigest === image.digest ? undefined : image.parentDigest],
    ["tags", image.fullTags.length === 0 ? "none" : image.fullTags.map(printable).join(", ")],
    ["damage", image.damage === undefined ? undefined : printable(image.damage)],
    ["platform", printable(image.platform)],
    ["distribution", printable(image.distribution ?? "none found")],
    ["files", `${formatCount(image.files)}, ${formatBytes(image.fileBytes)}`],
    ["packages", formatPackageCounts(image.packages)],
    ["users", formatCount(image.users)],
    ["layers", `${formatCount(image.layers)}, ${formatBytes(image.blobBytes)} compressed`],
    ["analyzed", formatTime(image.analyzedAt)],
  ];
}
