import { createServer } from "node:net";
import { describe, expect, test } from "vitest";
import { engineSuite } from "../../test/conformance/engine-suite.ts";
import { createServerDatabase } from "../../test/server-database.ts";
import { createCall } from "../runtime/index.ts";
import { openDatabase } from "./index.ts";

const url = process.env.STOWAGE_TEST_POSTGRES_URL;
const isRequired = (process.env.STOWAGE_TEST_REQUIRE ?? "").split(",").includes("postgres");

if (url !== undefined) {
  const refused = async (changes: Partial<URL>) =>
    await openDatabase({ kind: "server", url: Object.assign(new URL(url), changes).href }, {}, createCall()).catch(
      (error: unknown) => error,
    );

  test("a wrong password is access denied, a database that is not there unreachable", async () => {
    const denied = await refused({ username: "nobody-known", password: "wr0ng-pw" });
    expect(denied).toMatchObject({ code: "ACCESS_DENIED" });
    expect(String(denied)).not.toContain("wr0ng-pw");
    expect(await refused({ pathname: "/stowage_no_such_database" })).toMatchObject({ code: "DB_UNREACHABLE" });
  });

  engineSuite("an external PostgreSQL", async () => {
    const own = await createServerDatabase(url);
    return {
      location: { kind: "server", url: own.url },
      url,
      [Symbol.asyncDispose]: () => own[Symbol.asyncDispose](),
    };
  });
} else if (isRequired) {
  test("an external PostgreSQL", () => {
    expect.fail("STOWAGE_TEST_REQUIRE names postgres, but STOWAGE_TEST_POSTGRES_URL is not set");
  });
} else {
  test.skip("an external PostgreSQL: SKIPPED, set STOWAGE_TEST_POSTGRES_URL to a superuser's URL of an empty database", () => {});
}

describe("a server that can't be used", () => {
  test("unreachable: says where, without the password", async () => {
    const port = await unusedPort();
    const location = {
      kind: "server",
      url: `postgresql+pg8000://anchore:s3cr3t%2Fpw@127.0.0.1:${port}/catalog`,
    } as const;
    const failure = await openDatabase(location, {}, createCall()).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "DB_UNREACHABLE", entry: { exitCode: 3 } });
    expect(String(failure)).toContain(`postgresql://anchore@127.0.0.1:${port}/catalog`);
    for (let error: unknown = failure; error instanceof Error; error = error.cause) {
      expect(`${error.message} ${error.stack} ${JSON.stringify(error)}`).not.toMatch(/s3cr3t/);
    }
  });

  test("something that is no PostgreSQL, and hangs up", async () => {
    await using server = createServer((socket) => {
      socket.resume().end("HTTP/1.1 400 Bad Request\r\n\r\n");
    }).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const address = server.address();
    const port = typeof address === "object" ? address?.port : undefined;
    const location = { kind: "server", url: `postgresql://u:p@127.0.0.1:${port}/d` } as const;
    await expect(openDatabase(location, {}, createCall())).rejects.toMatchObject({ code: "DB_UNREACHABLE" });
  });
});

async function unusedPort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (typeof address !== "object" || address === null) throw new Error("no address");
  return address.port;
}
