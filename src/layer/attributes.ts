import type { LayerNode } from "./entry.ts";

/** What all names of a file share besides its content. */
export type Attributes = Pick<LayerNode, "mode" | "uid" | "gid" | "mtime" | "xattrs">;

/** A file with the attributes that a hard link's entry gives it (analysis.md B39); extended ones only where the entry has some. */
export function withAttributes(node: LayerNode, { mode, uid, gid, mtime, xattrs }: Attributes): LayerNode {
  return { ...node, mode, uid, gid, mtime, xattrs: xattrs ?? node.xattrs };
}

/** Whether these attributes are other ones than the file's own. Times are not looked at: they decide nothing, and writers of archives clamp them. */
export function changesAttributes(node: LayerNode, { mode, uid, gid, xattrs }: Attributes): boolean {
  if (mode !== node.mode || uid !== node.uid || gid !== node.gid) return true;
  if (xattrs === undefined) return false;
  const own = node.xattrs ?? {};
  const names = Object.keys(xattrs);
  return names.length !== Object.keys(own).length || names.some((name) => own[name] !== xattrs[name]);
}
