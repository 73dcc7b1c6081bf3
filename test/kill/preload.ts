/**
 * Loaded into a command before anything else (`node --import`): kills at the n-th step that the command announces, or writes down the steps.
 *
 * | variable | |
 * |---|---|
 * | `KILL_STEPS_FILE` | where to write the name of each step, one a line |
 * | `KILL_AT_STEP` | the number of the step, from 1 |
 * | `KILL_VICTIM` | `command`, `server` (which the command then notices), or `both` |
 * | `KILL_DATA_DIRECTORY` | of the server |
 */
import { subscribe } from "node:diagnostics_channel";
import { appendFileSync, writeSync } from "node:fs";
import { killServer } from "./victims.ts";

const { KILL_STEPS_FILE, KILL_AT_STEP, KILL_VICTIM, KILL_DATA_DIRECTORY = "" } = process.env;
/** Where the parent waits for the first step. */
const firstStepDescriptor = 3;
let count = 0;

subscribe("stowage.step", (message) => {
  count++;
  if (count === 1) writeSync(firstStepDescriptor, ".");
  if (KILL_STEPS_FILE) appendFileSync(KILL_STEPS_FILE, `${(message as { name: string }).name}\n`);
  if (count !== Number(KILL_AT_STEP)) return;
  if (KILL_VICTIM !== "command") killServer(KILL_DATA_DIRECTORY);
  if (KILL_VICTIM !== "server") process.kill(process.pid, "SIGKILL");
});
