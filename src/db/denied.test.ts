import { expect, test } from "vitest";
import { deniedFailure } from "./denied.ts";

const denied = (reason: string, text: string, user: string | undefined = "app") =>
  deniedFailure(new Error(reason), { text, user });

test.each([
  ["table object_chunks", 'insert into "object_chunks" ("a") values ($1)', "INSERT"],
  [
    "table object_chunks",
    "with claim as (insert into object_chunks (a) select 1) select * from object_blobs",
    "INSERT",
  ],
  ["table object_blobs", "with claim as (insert into object_chunks (a) select 1) select * from object_blobs", "SELECT"],
  ["table object_blobs", "delete from public.object_blobs where true", "DELETE"],
  ["table locations", 'update "locations" set a = 1', "UPDATE"],
  ["table locations", 'select * from "locations_x", locations', "SELECT"],
  ["table a", 'insert into "ab" select * from a', "SELECT"],
  ["schema public", "create table if not exists x ()", "CREATE"],
  ["schema own", "select * from own.x", "USAGE"],
  ["sequence images_id_seq", "insert into images values (1)", "USAGE"],
])("permission denied for %s by %s: %s", (resource, text, permission) => {
  const failure = denied(`permission denied for ${resource}`, text);
  expect(failure).toMatchObject({ code: "DB_DENIED", details: { permission, resource } });
  expect(failure.hint).toContain(
    `GRANT ${permission} ON ${resource.replace(/^(schema|sequence)/, (kind) => kind.toUpperCase()).replace("table ", "")} TO app`,
  );
});

test("names of users are quoted where they must be", () => {
  expect(denied("permission denied for table x", "select 1", 'a"B').hint).toContain('TO "a""B"');
  expect(deniedFailure(new Error("permission denied for table x"), undefined).hint).toContain("TO this user");
});

test("who may not change a table's form is told who may, and other words are kept", () => {
  expect(denied("must be owner of table images", "alter table images")).toMatchObject({
    code: "DB_DENIED",
    hint: expect.stringContaining("as the owner of its tables"),
  });
  expect(denied("Keine Berechtigung", "select 1").details).toEqual({ reason: "Keine Berechtigung" });
});
