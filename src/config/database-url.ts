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

/** Which database a URL means, whoever logs in and however: host, port and name. What is no URL stands for itself. */
export function databasePlace(text: string): string {
  try {
    const url = new URL(text.replace(/^postgres(ql)?(\+\w+)?:/i, "postgresql:"));
    const host = url.searchParams.get("host") ?? decodeURIComponent(url.hostname);
    const port = url.searchParams.get("port") ?? url.port;
    const name = decodeURIComponent(url.pathname.slice(1)) || decodeURIComponent(url.username);
    return JSON.stringify([host.toLowerCase(), port || "5432", name]);
  } catch {
    return text;
  }
}
