import { expect, it } from "vitest";
import { temporaryFailure } from "./temporary.ts";

const failure = (code: string) => Object.assign(new Error(`${code}: write`), { code });

it("says which directory, what went wrong, and what to do about it", () => {
  const error = temporaryFailure(failure("EACCES"), "/scratch");
  expect(error).toMatchObject({
    code: "CONFIG_TEMPORARY_UNUSABLE",
    details: { directory: "/scratch", reason: "EACCES: write" },
    hint: expect.stringContaining("tmp_dir"),
  });
});

it.each(["ENOSPC", "EDQUOT"])("%s is no question of rights", (code) => {
  const { hint, details } = temporaryFailure(failure(code));
  expect(hint).toMatch(/^free space there/);
  expect(details).toEqual({ reason: `${code}: write` });
});
