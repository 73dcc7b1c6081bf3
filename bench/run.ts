/** `npm run bench -- NAME [options]`: figures, beside a ceiling or a peer measured in the same run. Nothing passes or fails here. */
const [name, ...parameters] = process.argv.slice(2);

switch (name) {
  case "analyze":
    await (await import("./analyze.ts")).benchAnalyze(parameters);
    break;
  case "store":
    await (await import("./store/index.ts")).benchStore(parameters);
    break;
  case "migrate":
    await (await import("./migrate/index.ts")).benchMigrate(parameters);
    break;
  case "layers":
    await (await import("./layers/index.ts")).benchLayers(parameters);
    break;
  default:
    console.error(
      `usage: npm run bench -- analyze [options] | store [options] | migrate [options] | layers [options]${name === undefined ? "" : `; there is no bench ${name}`}`,
    );
    process.exitCode = 2;
}
