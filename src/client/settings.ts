import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parse } from "yaml";
import type { Endpoint } from "./endpoint.ts";

/** The settings are wrong or missing; the message says which. */
export class SettingsError extends Error {
  override readonly name = "SettingsError";
}

/** Connection settings as given on the command line, or to `connect`. */
export interface Flags {
  readonly address?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly ca?: string;
  readonly serverName?: string;
  readonly context?: string;
  readonly as?: string;
}

interface Paths {
  readonly address: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
  readonly ca: string | undefined;
  readonly serverName: string | undefined;
}

/** `env` without the variables that are set to nothing. */
function set(env: NodeJS.ProcessEnv, name: string): string | undefined {
  return env[name] === "" ? undefined : env[name];
}

/**
 * Where the broker is, and the files (or PEM texts) of who calls, each of which can be read. Flags win over `LEASEHOLD_*` variables, those over a context file, that over a development broker
 * found from this folder upwards. Throws SettingsError.
 */
export function endpointOf(flags: Flags, env: NodeJS.ProcessEnv, cwd: string): Endpoint {
  // `--as` names a client of the development broker, and nothing else has those.
  const base = flags.as === undefined ? (fromContext(flags, env) ?? fromDevelopment(flags, cwd)) : fromDevelopment(flags, cwd);
  if (flags.as !== undefined && base === undefined) throw new SettingsError("--as: no development broker runs here; start one with `npm start`");
  const value = (name: "address" | "cert" | "key" | "ca"): string => {
    const found = flags[name] ?? set(env, `LEASEHOLD_${name.toUpperCase()}`) ?? base?.[name];
    if (found === undefined)
      throw new SettingsError(
        `no ${name}: give --${name}, set LEASEHOLD_${name.toUpperCase()}, use a context file, or start a development broker here with \`npm start\``,
      );
    return found;
  };
  const address = value("address");
  if (/:\/\/|\s/.test(address) || !/^unix:.|:[0-9]{1,5}$/.test(address))
    throw new SettingsError("the address must be host:port, without https://, or unix:/path");
  // The name of the base goes with the base's address: another address must show its own.
  const serverName = flags.serverName ?? set(env, "LEASEHOLD_SERVER_NAME") ?? (address === base?.address ? base.serverName : undefined);
  return { address, certificate: readable(value("cert"), cwd), key: readable(value("key"), cwd), ca: readable(value("ca"), cwd), serverName };
}

/** The context file: `{current: name, contexts: {name: {address, cert, key, ca, server_name}}}`; relative paths are relative to it. */
function fromContext(flags: Flags, env: NodeJS.ProcessEnv): Paths | undefined {
  const file = set(env, "LEASEHOLD_CONFIG") ?? join(homedir(), ".config", "leasehold", "config.yaml");
  if (!existsSync(file)) {
    if (flags.context !== undefined || set(env, "LEASEHOLD_CONFIG") !== undefined) throw new SettingsError(`there is no context file ${file}`);
    return undefined;
  }
  const config = parsed(file, parse) as { current?: string; contexts?: Record<string, Record<string, string> | null> } | null;
  const name = flags.context ?? set(env, "LEASEHOLD_CONTEXT") ?? config?.current;
  if (name === undefined) return undefined;
  const context = config?.contexts?.[name];
  if (context === undefined || context === null) throw new SettingsError(`the context file has no context ${name}`);
  const at = (path: string | undefined): string | undefined => (path === undefined ? undefined : resolve(dirname(file), path));
  return { address: context["address"], cert: at(context["cert"]), key: at(context["key"]), ca: at(context["ca"]), serverName: context["server_name"] };
}

/** `.leasehold/dev.json`, which a running development broker writes; its certificate says `localhost`. */
function fromDevelopment(flags: Flags, cwd: string): Paths | undefined {
  for (let folder = resolve(cwd); ; folder = dirname(folder)) {
    const home = join(folder, ".leasehold");
    const file = join(home, "dev.json");
    if (existsSync(file)) return developmentPaths(file, home, flags.as ?? "admin");
    if (dirname(folder) === folder) return undefined;
  }
}

function developmentPaths(file: string, home: string, as: string): Paths {
  const dev = parsed(file, JSON.parse) as { address: string; ca: string; clients: Record<string, { cert: string; key: string }> };
  const client = dev.clients[as];
  if (client === undefined) throw new SettingsError(`the development broker has no client ${as}; it has ${Object.keys(dev.clients).join(", ")}`);
  return { address: dev.address, ca: join(home, dev.ca), cert: join(home, client.cert), key: join(home, client.key), serverName: "localhost" };
}

/** A parser's own text may quote the file: only that it can't be read is said. */
function parsed(file: string, parser: (text: string) => unknown): unknown {
  const text = read(file);
  try {
    return parser(text);
  } catch {
    throw new SettingsError(`${file} is malformed`);
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new SettingsError(`${path} can't be read (${(error as NodeJS.ErrnoException).code ?? "unknown"})`);
  }
}

/** The file's absolute name, once it has been read; a PEM text as it is. */
function readable(file: string, cwd: string): string {
  if (file.includes("-----BEGIN ")) return file;
  read(resolve(cwd, file));
  return resolve(cwd, file);
}
