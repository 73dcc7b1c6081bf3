import { expect, it } from "vitest";
import { runCataloger } from "../../../test/catalogers/run-cataloger.ts";
import { usersCataloger } from "./users-cataloger.ts";

const passwd = "root:x:0:0:root:/root:/bin/bash\n\n# note\n+nis::::::\nweb:$6$hash:33:34::/var/www\nbroken\nno:x:a:1\n";

it("users and groups of the visible files, without passwords", () => {
  const run = runCataloger(usersCataloger, [
    {
      "etc/passwd": "old:x:1:1::/:\n",
      "etc/group": "root:x:0:\nadm:$1$secret:4:syslog, web,\n",
      "srv/etc/passwd": "a:x:1:1::/:",
    },
    { "etc/passwd": passwd },
  ]);
  expect(run.asked).toEqual([["etc/group", "etc/passwd"], ["etc/passwd"]]);
  expect(run.other).toEqual({
    users: [
      { name: "root", uid: 0, gid: 0, comment: "root", home: "/root", shell: "/bin/bash" },
      { name: "web", uid: 33, gid: 34, home: "/var/www" },
    ],
    groups: [
      { name: "root", gid: 0, members: [] },
      { name: "adm", gid: 4, members: ["syslog", "web"] },
    ],
  });
  expect(JSON.stringify(run.findings)).not.toMatch(/hash|secret/);
  expect(run.findings[1]).toContainEqual({
    kind: "problem",
    path: "etc/passwd",
    value: { text: "left out 2 lines without a name or number" },
  });
});

it("removed files leave nothing, endless ones are cut", () => {
  expect(runCataloger(usersCataloger, [{ "etc/passwd": passwd }, { "etc/passwd": null }]).other).toEqual({});
  const run = runCataloger(usersCataloger, [{ "etc/group": "g:x:1:\n".repeat(6_000) }]);
  expect(run.other?.groups).toHaveLength(5_000);
  expect(run.findings[0]).toHaveLength(2);
});
