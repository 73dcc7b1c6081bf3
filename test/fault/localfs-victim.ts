/**
 * Puts and deletes files, in a process of its own that kills itself: at the n-th step that is announced, or never.
 *
 * Usage: node localfs-victim.ts DIRECTORY STEP
 *
 * Standard output: `step NAME` for each step that is reached, `done INDEX` for each operation of the history that has returned.
 */
import { writeSync } from "node:fs";
import { openLocalFiles } from "../../src/objects/drivers/localfs/local-files-driver.ts";
import { announce, createCall, onStep } from "../../src/runtime/index.ts";
import { bodyOf, localfsHistory } from "./localfs-history.ts";

const [root = "", killAt = ""] = process.argv.slice(2);
const call = createCall();
// Synchronous: a line in a stream's buffer would die with the process.
const say = (line: string) => writeSync(1, `${line}\n`);

let steps = 0;
onStep(({ name }) => {
  say(`step ${name}`);
  if (++steps === Number(killAt)) process.kill(process.pid, "SIGKILL");
});

const driver = await openLocalFiles({ root, fileMode: 0o640, directoryMode: 0o750 }, call);
for (const [index, { operation, key }] of localfsHistory().entries()) {
  if (operation === "put")
    await driver.put(
      key,
      bodyOf(key, () => announce("victim halfway")),
      call,
    );
  else await driver.delete(key, call);
  say(`done ${index}`);
  // Between what is durable and what comes next is a place to die like any other.
  announce("victim acknowledged");
}
process.exit(0);
