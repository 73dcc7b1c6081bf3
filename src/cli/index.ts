/** The command line. Nothing imports it but the generator of its reference: its definitions of commands and of JSON documents. */
export { documents } from "./documents.ts";
export { createProgram, everyCommand } from "./program.ts";
