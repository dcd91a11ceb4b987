import { createHash } from "node:crypto";
import type { OpenOptions, TargetIdentity } from "../engine.ts";
import { misconfigured } from "../own-login.ts";
import type { Session } from "./sessions.ts";

export interface Server {
  readonly mariadb: boolean;
  readonly version: string;
  readonly id: string;
  readonly readOnly: boolean;
}

/**
 * MySQL has server_uuid, made with its data folder. MariaDB has nothing of the kind in all versions: there the id is a digest of host name,
 * port, data folder and server_id, so that a server moved to another host is another server until the target is made anew.
 */
export async function askServer(session: Session): Promise<Server> {
  const [row] = await session.rows<{ version: string; ro: number | string }>("SELECT VERSION() AS version, @@GLOBAL.read_only + 0 AS ro");
  const { version, ro } = row!;
  const mariadb = version.includes("MariaDB");
  const [found] = await session.rows<{ id: string }>(
    mariadb ? "SELECT CONCAT_WS(CHAR(10), @@hostname, @@port, @@datadir, @@server_id) AS id" : "SELECT @@server_uuid AS id",
  );
  const id = mariadb ? createHash("sha256").update(found!.id).digest("hex").slice(0, 32) : found!.id;
  return { mariadb, version, id, readOnly: Number(ro) !== 0 };
}

/** Throws TARGET_MISCONFIGURED `different_server` when a login belongs elsewhere: nothing is to be touched, and absent means nothing (finding 12). */
export async function requireServer(session: Session, expected: string | undefined): Promise<Server> {
  const server = await askServer(session);
  if (expected !== undefined && expected !== server.id) throw misconfigured("different_server");
  if (server.readOnly) throw misconfigured("in_recovery");
  return server;
}

export async function identify(session: Session, options: OpenOptions): Promise<TargetIdentity> {
  const server = await askServer(session);
  const before = options.clock.now();
  const now = await timeOf(session);
  const after = options.clock.now();
  return {
    systemIdentifier: server.id,
    timeline: 1,
    inRecovery: server.readOnly,
    serverVersion: server.version,
    clockSkewMs: Math.round(now - (before + after) / 2),
  };
}

/** The target's clock, Unix milliseconds. */
export async function timeOf(session: Session): Promise<number> {
  const [row] = await session.rows<{ now_ms: number | string }>("SELECT UNIX_TIMESTAMP(SYSDATE(6)) * 1000 AS now_ms");
  return Number(row!.now_ms);
}
