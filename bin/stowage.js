#!/usr/bin/env -S MALLOC_ARENA_MAX=2 node --max-semi-space-size=1
// A small young generation keeps the collector from letting documents that pass as streams pile up; few arenas keep glibc from doing so for each thread.
// Checks the version of Node before anything else is loaded. The syntax is one that old versions can read, too: no import or export statements, so that
// it is valid as a script and as a module.
var needed = 24;
var found = process.versions.node;
if (parseInt(found, 10) < needed) {
  process.stderr.write(
    "error: stowage needs Node.js " +
      needed +
      " or newer; this is " +
      found +
      " (" +
      process.execPath +
      ")\n  hint: install a newer Node.js, see https://nodejs.org/en/download\n  code: CONFIG_NODE_TOO_OLD\n",
  );
  process.exitCode = 2;
} else {
  // A rejection ends the process with its message, which is what it should do.
  void import("../dist/cli/main.js");
}
