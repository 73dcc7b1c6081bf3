import { createRequire } from "node:module";
import type { Dispatcher, Agent as UndiciAgent } from "undici";

/**
 * The parts of undici that are needed here. Its main module brings fetch, web sockets, caches and mocks besides, which take longer to load than all else
 * that asks a registry.
 */
const require = createRequire(import.meta.url);

export const Agent = require("undici/lib/dispatcher/agent.js") as typeof UndiciAgent;
export type Agent = UndiciAgent;

const sendRequest = require("undici/lib/api/api-request.js") as (
  this: Dispatcher,
  options: Dispatcher.RequestOptions,
) => Promise<Dispatcher.ResponseData>;

export function request(
  agent: Agent,
  { origin, pathname, search }: URL,
  options: Omit<Dispatcher.RequestOptions, "origin" | "path">,
): Promise<Dispatcher.ResponseData> {
  return sendRequest.call(agent, { ...options, origin, path: `${pathname}${search}` });
}
