/** The `db` driver: blobs in the database itself. */
export { DatabaseDriver } from "./database-driver.ts";
export { databaseOpener } from "./opener.ts";
