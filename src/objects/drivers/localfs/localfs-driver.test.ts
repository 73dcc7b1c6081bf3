import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describeDriver } from "../../../../test/conformance/driver-suite.ts";
import { createCall } from "../../../runtime/index.ts";
import { readBytes } from "./file-reader.ts";
import { openLocalFiles } from "./local-files-driver.ts";

describeDriver("the localfs driver", async () => {
  const parent = await mkdtemp(join(tmpdir(), "stowage-localfs-"));
  const root = join(parent, "made", "as needed");
  const driver = await openLocalFiles({ root, fileMode: 0o640, directoryMode: 0o750 }, createCall());
  // A fresh ext4 volume has one.
  await mkdir(join(root, "lost+found"));
  return {
    driver,
    chunkBytes: readBytes,
    async remains() {
      const entries = await readdir(root, { recursive: true, withFileTypes: true });
      return entries.filter((entry) => !entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name));
    },
    async litter(partOf) {
      const fanOut = partOf.slice(0, 2);
      const wrong = partOf.startsWith("ff") ? "00" : "ff";
      const part = `${fanOut}/${partOf}.0123456789abcdef.part`;
      const names = [
        part,
        "big-foreign.bin",
        "sub/dir/x.blob",
        `${wrong}/${partOf}.blob`,
        `${fanOut}/${partOf}.blob/x`,
      ];
      for (const [index, name] of names.entries()) {
        await mkdir(dirname(join(root, name)), { recursive: true });
        await writeFile(join(root, name), Buffer.alloc(100 + index));
      }
      await symlink("/etc", join(root, "link"));
      const probe = join(root, `probe.${partOf}.part`);
      await writeFile(probe, "");
      const foreign = [
        ...names.map((name, index) => ({ name, sizeBytes: 100 + index, ...(name === part ? { partOf } : {}) })),
        { name: `${fanOut}/${partOf}.blob`, sizeBytes: 0 },
        { name: "link", sizeBytes: 0 },
      ];
      return {
        foreign,
        async [Symbol.asyncDispose]() {
          for (const { name } of foreign) await rm(join(root, name), { recursive: true, force: true });
          await rm(probe);
        },
      };
    },
    [Symbol.asyncDispose]: () => rm(parent, { recursive: true }),
  };
});
