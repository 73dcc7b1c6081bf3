import { withScratch } from "./contender.ts";
import { measure, waitForDatabaseEnd } from "./measure.ts";
import { milliseconds, type Report } from "./report.ts";
import { median } from "./statistics.ts";
import { dataDirectory, stowageCommand } from "./stowage.ts";

const RUNS = 21;
const versionMsMax = 150;
const listMsMax = 500;

/** What a person waits for before anything happens, over bare `node`. */
export async function benchStartUp(report: Report): Promise<void> {
  report.subheading("Start-up");
  await withScratch(async (scratch) => {
    const data = dataDirectory(scratch);
    const commands = {
      bare: [process.execPath, "-e", "0"],
      version: [...stowageCommand, "--version"],
      list: [...stowageCommand, "image", "list", "--data-dir", data],
    };
    await measure(commands.list);
    await waitForDatabaseEnd(data);
    const walls: Record<keyof typeof commands, number[]> = { bare: [], version: [], list: [] };
    for (let run = 0; run < RUNS; run++) {
      for (const name of ["bare", "version", "list"] as const) {
        walls[name].push((await measure(commands[name])).wallMs);
        await waitForDatabaseEnd(data);
      }
    }
    const bare = median(walls.bare);
    const over = (name: keyof typeof commands) => median(walls[name]) - bare;
    report.table([
      [`median of ${RUNS}`, "wall", "over bare node"],
      ["node -e 0", milliseconds(bare), "–"],
      ["stowage --version", milliseconds(median(walls.version)), milliseconds(over("version"))],
      ["stowage image list, database stopped", milliseconds(median(walls.list)), milliseconds(over("list"))],
    ]);
    report.list(["`image list` includes starting the database and stopping it"]);
    report.goal(
      `--version ≤ ${versionMsMax} ms over node`,
      milliseconds(over("version")),
      over("version") <= versionMsMax,
    );
    report.goal(`image list ≤ ${listMsMax} ms over node`, milliseconds(over("list")), over("list") <= listMsMax);
  });
}
