/** The image whose analysis is killed: several layers, package databases, whiteouts, an index around it. */
import { buildImage, buildIndex, type TarEntry, writeLayout } from "../images/builder.ts";

const packageNames = Array.from({ length: 40 }, (_, index) => `package-${index}`);

const base: readonly TarEntry[] = [
  { path: "etc", type: "dir" },
  { path: "etc/os-release", content: 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n' },
  { path: "etc/passwd", content: "root:x:0:0:root:/root:/bin/sh\n" },
  {
    path: "var/lib/dpkg/status",
    content: packageNames
      .map(
        (name) =>
          `Package: ${name}\nStatus: install ok installed\nVersion: 1.0-1\nArchitecture: amd64\nInstalled-Size: 10\nMaintainer: M <m@example.com>\nDescription: d\n`,
      )
      .join("\n"),
  },
  ...packageNames.flatMap((name) => [
    { path: `usr/share/${name}/data`, content: name.repeat(50) },
    {
      path: `var/lib/dpkg/info/${name}.list`,
      content: `/.\n/usr\n/usr/share\n/usr/share/${name}\n/usr/share/${name}/data\n`,
    },
  ]),
];

/** Names enough for a document of several chunks. */
const many: readonly TarEntry[] = Array.from({ length: 4000 }, (_, index) => ({
  path: `srv/directory-${index % 100}/file-${index}`,
  content: String(index * 7919),
}));

const changes: readonly TarEntry[] = [
  { path: "srv/directory-3/.wh..wh..opq", content: "" },
  { path: "srv/directory-3/new", content: "new" },
  { path: "srv/.wh.directory-4", content: "" },
  { path: "usr/share/package-1/data", content: "changed" },
  { path: "bin/setuid", content: "x", mode: 0o4755 },
];

const application: readonly TarEntry[] = [
  { path: "app/node_modules/left-pad/package.json", content: '{"name":"left-pad","version":"1.3.0"}' },
  { path: "app/link", type: "symlink", linkTarget: "/usr/share/package-1/data" },
];

/** Writes a layout and returns the source's name for `analyze`. */
export function writeKillImage(directory: string): string {
  const image = buildImage({
    layers: [
      base,
      { content: many, compression: "zstd" },
      changes,
      { content: application, compression: "none" },
      changes,
    ],
  });
  writeLayout(directory, [{ image: buildIndex([image]), ref: "killed" }]);
  return `oci:${directory}:killed`;
}
