import { unlink } from "node:fs/promises";
import { createConnection, type ListenOptions, type Server } from "node:net";
import { LeaseholdError } from "../base/errors.ts";

/**
 * Listens on `host:port`, `[v6]:port` or `unix:/path` and answers the address in that form, with the port that was chosen for 0.
 * Throws IN_USE when another process listens there, REQUEST_INVALID for what can't be listened on; the message is one line for a person.
 */
export async function listenOn(server: Server, address: string): Promise<string> {
  const target = parseAddress(address);
  try {
    await listen(server, target);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "EADDRINUSE") throw new LeaseholdError("REQUEST_INVALID", `can't listen on ${address} (${code ?? "unknown"})`, { cause: error });
    // A unix socket's file outlives a process that was killed: in the way, but nobody's.
    if (target.path === undefined || (await answers(target.path))) throw new LeaseholdError("IN_USE", `${address} is already in use`, { cause: error });
    await unlink(target.path);
    await listen(server, target);
  }
  const bound = server.address();
  if (bound === null || typeof bound === "string") return address;
  return `${bound.family === "IPv6" ? `[${bound.address}]` : bound.address}:${bound.port}`;
}

function parseAddress(address: string): ListenOptions {
  if (address.startsWith("unix:")) return { path: address.slice("unix:".length) };
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):([0-9]{1,5})$/.exec(address);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) throw new LeaseholdError("REQUEST_INVALID", `${address} is neither host:port nor unix:/path`);
  return { host: (match[1] ?? match[2])!, port, backlog: 1024 };
}

function listen(server: Server, options: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(options, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createConnection(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => resolve(error.code !== "ECONNREFUSED" && error.code !== "ENOENT"));
  });
}
