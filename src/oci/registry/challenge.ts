/** What a registry asks for in `WWW-Authenticate`. */
export type Challenge =
  | { readonly scheme: "basic" }
  | {
      readonly scheme: "bearer";
      readonly realm: string;
      readonly service: string | undefined;
      readonly scope: string | undefined;
    };

/**
 * The first challenge that we can meet, Bearer or Basic. One header may hold several, parameters come in any order, quoted or not.
 * @see RFC 9110, 11.6.1; distribution, spec/auth/token.md
 */
export function findChallenge(headers: string | readonly string[] | undefined): Challenge | undefined {
  for (const header of typeof headers === "string" ? [headers] : (headers ?? [])) {
    for (const { scheme, parameters } of parseChallenges(header.slice(0, 16 * 1024))) {
      if (scheme === "basic") return { scheme };
      const realm = parameters.get("realm");
      if (scheme === "bearer" && realm !== undefined) {
        return { scheme, realm, service: parameters.get("service"), scope: parameters.get("scope") };
      }
    }
  }
  return undefined;
}

function parseChallenges(header: string): { scheme: string; parameters: Map<string, string> }[] {
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  // Either `name=value`, which belongs to the challenge before it, or a word alone, which begins one. Sticky, so linear.
  const pattern = /[\s,]*(?:([!#$%&'*+.^_`|~\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))|([!#$%&'*+.^_`|~\w-]+))/y;
  for (let match = pattern.exec(header); match !== null; match = pattern.exec(header)) {
    const [, name, quoted, token, scheme] = match;
    if (scheme !== undefined) challenges.push({ scheme: scheme.toLowerCase(), parameters: new Map() });
    else if (name !== undefined) {
      challenges.at(-1)?.parameters.set(name.toLowerCase(), quoted?.replace(/\\(.)/g, "$1") ?? token ?? "");
    }
  }
  return challenges;
}
