import type { Sensitive } from "../../base/sensitive.ts";
import type { CreatedLogin, LoginRef, NewLogin, OpenOptions, PreflightCheck, RevokeResult, Target, TargetIdentity } from "../engine.ts";
import { isInstance } from "../names.ts";
import type { PostgresRoleConfig, PostgresTargetConfig } from "./config.ts";
import { misconfigured } from "./faults.ts";
import { preflight } from "./preflight.ts";
import { revoke } from "./revoke.ts";
import { scramVerifier } from "./scram.ts";
import { Sessions } from "./sessions.ts";
import { CREATE, FIND, IDENTIFY, RENEW } from "./statements.ts";

/** One PostgreSQL server seen through the functions of its `leasehold` schema; the broker's login there can do nothing else. */
export class PostgresTarget implements Target<PostgresRoleConfig> {
  readonly #sessions: Sessions;
  readonly #options: OpenOptions;

  constructor(config: PostgresTargetConfig, password: Sensitive, options: OpenOptions) {
    if (!isInstance(options.instance)) throw new RangeError("malformed instance");
    this.#sessions = new Sessions(config, password, options);
    this.#options = options;
  }

  identify(): Promise<TargetIdentity> {
    return identify(this.#sessions, this.#options);
  }

  async create(login: NewLogin<PostgresRoleConfig>): Promise<CreatedLogin> {
    const { role } = login;
    const verifier = await scramVerifier(login.password, role.scramIterations);
    const [row] = await this.#sessions.query<{ role_oid: string; system_identifier: string }>(CREATE, [
      this.#options.instance,
      [login.name],
      [verifier],
      [Math.ceil(login.validForMs)],
      role.memberOf,
      role.connectionLimit ?? null,
      Math.floor(login.deadlineAt),
    ]);
    if (row === undefined) throw misconfigured("not_bootstrapped");
    const { host, port } = this.#sessions.config;
    return {
      oid: row.role_oid,
      systemIdentifier: row.system_identifier,
      connection: { host, port: String(port), database: role.database, username: login.name },
    };
  }

  async renew(login: LoginRef, validForMs: number): Promise<void> {
    const values = [this.#options.instance, [login.name], [login.oid ?? null], [Math.ceil(validForMs)], login.systemIdentifier ?? null];
    const rows = await this.#sessions.query(RENEW, values);
    if (rows.length === 0) throw misconfigured("login_missing");
  }

  revoke(login: LoginRef): Promise<RevokeResult> {
    return revoke(this.#sessions, this.#options, login);
  }

  async find(name: string): Promise<{ readonly oid: string; readonly canLogin: boolean } | undefined> {
    const [row] = await this.#sessions.query<{ role_oid: string; can_login: boolean }>(FIND, [this.#options.instance, [name]]);
    return row && { oid: row.role_oid, canLogin: row.can_login };
  }

  preflight(role: PostgresRoleConfig | undefined): Promise<readonly PreflightCheck[]> {
    return preflight(this, this.#sessions, this.#options, role);
  }

  close(): Promise<void> {
    return this.#sessions.close();
  }
}

interface IdentityRow {
  readonly system_identifier: string;
  readonly timeline_id: number;
  readonly in_recovery: boolean;
  readonly server_version: string;
  readonly now_ms: number;
}

/** Works before the bootstrap too. The skew is exact to half a round trip. */
function identify(sessions: Sessions, options: OpenOptions): Promise<TargetIdentity> {
  return sessions.use(async (client) => {
    const before = options.clock.now();
    const { rows } = await client.query<IdentityRow>(IDENTIFY);
    const after = options.clock.now();
    const row = rows[0]!;
    return {
      systemIdentifier: row.system_identifier,
      timeline: row.timeline_id,
      inRecovery: row.in_recovery,
      serverVersion: row.server_version,
      clockSkewMs: Math.round(row.now_ms - (before + after) / 2),
    };
  });
}
