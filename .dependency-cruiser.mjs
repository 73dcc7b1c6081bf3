import { createRequire } from "node:module";
import { builtIn, faces, ownFiles, packagesOf, sources, tests } from "./lint/rooms.ts";

// dependency-cruiser walks files with this class of @swc/core, which throws at `await using`. Remove once it doesn't.
const { Visitor } = createRequire(import.meta.url)("@swc/core/Visitor.js");
const visitStatement = Visitor.prototype.visitStatement;
Visitor.prototype.visitStatement = function (statement) {
  if (statement.type !== "UsingDeclaration") return visitStatement.call(this, statement);
  statement.decls = this.visitVariableDeclarators(statement.decls);
  return statement;
};

/** Deny by default: an import in `src/` that no `allowed` rule covers is an error. The table is `lint/rooms.ts`. */
export default {
  allowed: [
    ...sources.flatMap((source) => [
      { from: source.from, to: { path: ownFiles(source) } },
      { from: source.from, to: { path: faces(source) } },
      { from: source.from, to: { path: packagesOf(source), dependencyTypesNot: ["core"] } },
      { from: source.from, to: { path: builtIn(source), dependencyTypes: ["core"] } },
    ]),
    { from: { path: tests }, to: {} },
  ],
  allowedSeverity: "error",
  forbidden: [
    {
      name: "only-app-knows-drivers",
      comment: "Everything else knows the contract, so that a driver is a folder and a line.",
      severity: "error",
      from: { pathNot: `^src/(app|objects/drivers)/|${tests}` },
      to: { path: "^src/objects/drivers/[^/]+/" },
    },
    {
      name: "drivers-know-the-contract",
      comment: "A driver knows bytes by key, not objects, codecs or pointers.",
      severity: "error",
      from: { path: "^src/objects/drivers/", pathNot: tests },
      to: { path: "^src/objects/", pathNot: "^src/objects/(driver[.]ts$|drivers/)" },
    },
    {
      name: "no-driver-knows-another",
      severity: "error",
      from: { path: "^src/objects/drivers/([^/]+)/", pathNot: tests },
      to: { path: "^src/objects/drivers/[^/]+/", pathNot: "^src/objects/drivers/$1/" },
    },
    {
      name: "no-tests-in-the-product",
      severity: "error",
      from: { path: "^src/", pathNot: tests },
      to: { path: tests },
    },
    { name: "resolvable", severity: "error", from: {}, to: { couldNotResolve: true } },
  ],
  // With TypeScript 7 only swc sees the modules: without it, and with tsPreCompilationDeps or tsConfig, the check passes on nothing.
  options: { parser: "swc", doNotFollow: { path: "^node_modules" } },
};
