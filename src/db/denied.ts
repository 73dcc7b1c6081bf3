import { messageOf, StowageError } from "../errors/index.ts";

/** SQLSTATE "insufficient privilege". */
export const INSUFFICIENT_PRIVILEGE = "42501";

/** A statement, and who sent it. */
export interface SentStatement {
  readonly text: string;
  readonly user: string | undefined;
}

/** A statement that its user may not send: names the right that is missing, as far as server and statement tell. */
export function deniedFailure(error: unknown, statement: SentStatement | undefined): StowageError {
  const reason = messageOf(error);
  const [, kind, name] = /^permission denied for (table|schema|sequence) (.+)$/.exec(reason) ?? [];
  const options = (hint: string) => ({ cause: error, hint });
  if (kind === undefined || name === undefined) {
    const hint = reason.startsWith("must be owner")
      ? "run stowage once as the owner of its tables: others may use them, but not change their form"
      : "give the database's user this right";
    return new StowageError("DB_DENIED", { reason }, options(hint));
  }
  const permission = rightOn(kind, name, statement?.text ?? "");
  const what = kind === "table" ? name : `${kind.toUpperCase()} ${name}`;
  const remark = kind === "table" ? "; stowage needs SELECT, INSERT, UPDATE and DELETE on all its tables" : "";
  const hint = `as the owner, run: GRANT ${permission} ON ${what} TO ${quoted(statement?.user)}${remark}`;
  return new StowageError("DB_DENIED", { permission, resource: `${kind} ${name}`, reason }, options(hint));
}

function rightOn(kind: string, name: string, text: string): string {
  if (kind === "sequence") return "USAGE";
  if (kind === "schema") return /^\s*(create|alter)\b/i.test(text) ? "CREATE" : "USAGE";
  // A statement can do several things to several tables; a right to read is what all of them need.
  const table = `(?:\\w+[.])?"?${name.replace(/\W/g, "\\$&")}"?(?!\\w)`;
  const rights = [
    ["INSERT", "insert\\s+into"],
    ["DELETE", "delete\\s+from"],
    ["UPDATE", "update"],
    ["TRUNCATE", "truncate(?:\\s+table)?"],
  ] as const;
  return rights.find(([, verb]) => new RegExp(`\\b${verb}\\s+${table}`, "i").test(text))?.[0] ?? "SELECT";
}

function quoted(user: string | undefined): string {
  if (user === undefined) return "this user";
  return /^[a-z_][a-z0-9_]*$/.test(user) ? user : `"${user.replaceAll('"', '""')}"`;
}
