import { randomBytes } from "node:crypto";
import pg from "pg";

/**
 * A database of its own for a test or a file of tests, which goes with it: others are at work on the same server, and what one does to all sessions of its
 * database must not meet theirs.
 * @param url of the server, as one who may create databases there
 */
export async function createServerDatabase(url: string): Promise<AsyncDisposable & { readonly url: string }> {
  const name = `stowage_test_${randomBytes(6).toString("hex")}`;
  const administer = async (statement: string) => {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    try {
      await client.query(statement);
    } finally {
      await client.end();
    }
  };
  await administer(`create database ${name} template template0 encoding 'UTF8'`);
  return {
    url: Object.assign(new URL(url), { pathname: `/${name}` }).href,
    [Symbol.asyncDispose]: () => administer(`drop database ${name} with (force)`),
  };
}
