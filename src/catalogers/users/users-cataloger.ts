import { type Cataloger, decodePathText, type JsonValue, type LayerFinding } from "../../layer/index.ts";
import { finding, ProblemList, present, visibleFindings } from "../record.ts";
import { counted, fieldText, linesOf, nameText, wholeNumber } from "../text.ts";

const PASSWD = "etc/passwd";
const GROUP = "etc/group";
const entriesMax = 5_000;
const membersMax = 1_000;

/** A line of `/etc/passwd`, without its password. @see passwd(5) */
type User = {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly comment?: string;
  readonly home?: string;
  readonly shell?: string;
};

/** A line of `/etc/group`, without its password. @see group(5) */
type Group = { readonly name: string; readonly gid: number; readonly members: readonly string[] };

/** Users and groups: `other.users` and `other.groups`. Passwords are never kept. */
export const usersCataloger: Cataloger = {
  name: "users",
  version: 2,
  wants: [PASSWD, GROUP],
  fileBytesMax: 4 * 1024 * 1024,

  *catalog(files) {
    for (const file of files) {
      const problems = new ProblemList(file.path);
      const text = decodePathText(file.read());
      if (file.path === PASSWD) yield finding("users", file.path, parseLines(text, parseUser, problems));
      else yield finding("groups", file.path, parseLines(text, parseGroup, problems));
      yield* problems.findings();
    }
  },

  reconcile(findings, image) {
    const visible = visibleFindings(findings, image);
    const of = (kind: string) => visible.find((stored: LayerFinding) => stored.kind === kind)?.value;
    return { packages: [], other: present<Record<string, JsonValue>>({ users: of("users"), groups: of("groups") }) };
  },
};

function parseLines<T>(text: string, parse: (fields: readonly string[]) => T | undefined, problems: ProblemList): T[] {
  const entries: T[] = [];
  let damaged = 0;
  for (const line of linesOf(text)) {
    // `+` and `-` begin what is asked of a directory service.
    if (line.trim() === "" || /^[#+-]/.test(line)) continue;
    if (entries.length === entriesMax) {
      problems.add(`more than ${entriesMax} entries: the rest was left out`);
      break;
    }
    const entry = parse(line.split(":", 7));
    if (entry === undefined) damaged += 1;
    else entries.push(entry);
  }
  if (damaged > 0) problems.add(`left out ${counted(damaged, "line")} without a name or number`);
  return entries;
}

function parseUser(fields: readonly string[]): User | undefined {
  const [name, , uid, gid, comment, home, shell] = fields;
  const user = { name: nameText(name), uid: wholeNumber(uid), gid: wholeNumber(gid) };
  if (user.name === undefined || user.uid === undefined || user.gid === undefined) return undefined;
  return present<User>({
    name: user.name,
    uid: user.uid,
    gid: user.gid,
    comment: fieldText(comment),
    home: fieldText(home),
    shell: fieldText(shell),
  });
}

function parseGroup(fields: readonly string[]): Group | undefined {
  const [name, , gid, members = ""] = fields;
  const group = { name: nameText(name), gid: wholeNumber(gid) };
  if (group.name === undefined || group.gid === undefined) return undefined;
  return {
    name: group.name,
    gid: group.gid,
    members: members.split(",", membersMax).flatMap((member) => nameText(member) ?? []),
  };
}
