/**
 * The last line of `.ci/run`: `N passed, N failed, N skipped` of all runs of Vitest; exits with 1 when anything failed.
 * Usage: summary.mjs FAILED_STEPS REPORT=EXIT_STATUS…, the reports as Vitest's JSON reporter writes them.
 */
import { readFileSync } from "node:fs";

const [failedSteps, ...runs] = process.argv.slice(2);
const total = { passed: 0, failed: Number(failedSteps), skipped: 0 };

for (const run of runs) {
  const [, path, status] = /^(.*)=(\d+)$/.exec(run);
  const { passed, failed, skipped } = count(path);
  total.passed += passed;
  total.skipped += skipped;
  // A run can fail without a failed test: a file that can't be loaded, an error outside of tests, no report at all.
  total.failed += failed === 0 && status !== "0" ? 1 : failed;
}

console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;

function count(path) {
  try {
    const report = JSON.parse(readFileSync(path, "utf8"));
    return {
      passed: report.numPassedTests,
      failed: report.numFailedTests,
      skipped: report.numPendingTests + report.numTodoTests,
    };
  } catch {
    return { passed: 0, failed: 1, skipped: 0 };
  }
}
