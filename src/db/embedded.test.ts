import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { engineSuite } from "../../test/conformance/engine-suite.ts";

engineSuite("the embedded database", async () => {
  const dataDirectory = await mkdtemp(join(tmpdir(), "stowage-test-db-"));
  const socket = encodeURIComponent(join(dataDirectory, "postgres"));
  return {
    location: { kind: "embedded", dataDirectory },
    url: `postgresql:///postgres?host=${socket}&user=stowage`,
    async [Symbol.asyncDispose]() {
      await rm(dataDirectory, { recursive: true, force: true });
    },
  };
});
