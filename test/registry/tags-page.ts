/** One page of a repository's tags as a registry gives it, with the link to the next. */
export function tagsPage(
  repository: string,
  tags: readonly string[],
  query: URLSearchParams,
  pageMax = tags.length,
): { readonly headers: Record<string, string>; readonly body: Buffer } {
  const last = query.get("last") ?? "";
  const rest = tags.toSorted().filter((tag) => tag > last);
  const count = Math.min(Number(query.get("n") ?? tags.length), pageMax);
  const page = rest.slice(0, count);
  const next = `/v2/${repository}/tags/list?n=${count}&last=${encodeURIComponent(page.at(-1) ?? "")}`;
  const link: Record<string, string> = rest.length > count ? { link: `<${next}>; rel="next"` } : {};
  // A repository whose tags were all deleted has `null`.
  const body = JSON.stringify({ name: repository, tags: tags.length === 0 ? null : page });
  return { headers: { "content-type": "application/json", ...link }, body: Buffer.from(body) };
}
