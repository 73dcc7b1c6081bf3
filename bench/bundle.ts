/** Bundles one program, in a process of its own: what bundling takes would count as the first memory of every process that is started after it. */
import { bundle } from "../bundle.ts";

const [name = "", source = "", directory = ""] = process.argv.slice(2);
await bundle({ [name]: source }, directory);
