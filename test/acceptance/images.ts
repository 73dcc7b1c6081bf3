/** Small images for the acceptance tests, as layouts on disk. */
import { type Built, type BuiltImage, buildImage, type TarEntry, writeLayout } from "../images/builder.ts";

const alpineBase: readonly TarEntry[] = [
  { path: "bin", type: "dir" },
  { path: "bin/busybox", content: "not really", mode: 0o755 },
  { path: "bin/sh", type: "symlink", linkTarget: "/bin/busybox" },
  { path: "bin/bbsuid", content: "setuid", mode: 0o4755 },
  { path: "etc", type: "dir" },
  {
    path: "etc/os-release",
    content: 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.20.1\nPRETTY_NAME="Alpine Linux v3.20"\n',
  },
  { path: "etc/passwd", content: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n" },
  {
    path: "lib/apk/db/installed",
    content: [
      "C:Q1qKcZ+j23xssAXmgQhkOO8dHnbWw=",
      "P:busybox",
      "V:1.36.1-r29",
      "A:x86_64",
      "S:509600",
      "I:962560",
      "T:Size optimized toolbox",
      "U:https://busybox.net/",
      "L:GPL-2.0-only",
      "o:busybox",
      "m:Somebody <somebody@example.com>",
      "F:bin",
      "R:busybox",
      "a:0:0:755",
      "Z:Q1pcfTfDNEbNKQc2s1tia7da05M8Q=",
      "",
      "",
    ].join("\n"),
  },
];

/** Enough names that their list does not fit into a pipe. */
const manyFiles: readonly TarEntry[] = Array.from({ length: 3000 }, (_, index) => ({
  path: `srv/file-${String(index).padStart(5, "0")}`,
  content: String(index),
}));

const application = (version: string): readonly TarEntry[] => [
  {
    path: "app/node_modules/left-pad/package.json",
    content: JSON.stringify({ name: "left-pad", version, license: "WTFPL" }),
  },
  { path: "app/evil\u001b[2Jname", content: "x" },
  { path: Buffer.from("app/latin1-\xe9", "latin1"), content: "x" },
  { path: "bin/.wh.sh", content: "" },
];

export interface Images {
  readonly first: BuiltImage;
  readonly second: BuiltImage;
  /** Its second layer is cut off. */
  readonly broken: Built;
}

/** Writes a layout with the tags `1`, `2` (all layers but the last are those of `1`) and `broken`. */
export function writeImages(directory: string): Images {
  const first = buildImage({ layers: [alpineBase, manyFiles, application("1.3.0")] });
  const second = buildImage({ layers: [alpineBase, manyFiles, application("1.2.0")] });
  const whole = buildImage({ layers: [alpineBase, [{ path: "x", content: "y".repeat(5000) }]] });
  const [, layer] = whole.layers;
  const blobs = new Map(whole.blobs);
  if (layer) blobs.set(layer.descriptor.digest, layer.blob.subarray(0, layer.blob.length / 2));
  const broken = { ...whole, blobs };
  writeLayout(directory, [
    { image: first, ref: "1" },
    { image: second, ref: "2" },
    { image: broken, ref: "broken" },
  ]);
  return { first, second, broken };
}
