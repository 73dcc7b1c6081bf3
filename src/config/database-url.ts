const MASK = "********";

/**
 * A database URL as it may be shown: without its password, and without its options, one of which may be a password. Where an unencoded character makes it
 * doubtful what belongs to the password, nothing is shown.
 */
export function shownDatabaseUrl(url: string): string {
  const match =
    /^(postgres(?:ql)?(?:\+\w{1,20})?:\/\/)(?:([^:/?#@]*)(:[^/?#]*)?@)?([^:/?#@]*|\[[\da-f:.]*\])(:\d{1,5})?(\/[^/?#@]*)?(\?[^@]*)?$/is.exec(
      url,
    );
  if (match === null) return MASK;
  const [, scheme = "", user, password, host = "", port = "", name = "", query] = match;
  const login = user === undefined ? "" : `${user}${password === undefined ? "" : `:${MASK}`}@`;
  return `${scheme}${login}${host}${port}${name}${query === undefined ? "" : "?…"}`;
}
