import { isReason } from "../../base/errors.ts";
import { Gather } from "../../base/gather.ts";
import type { CreatedLogin, NewLogin } from "../engine.ts";
import type { PostgresRoleConfig } from "./config.ts";
import { misconfigured } from "./faults.ts";
import { scramVerifier } from "./scram.ts";
import type { Sessions } from "./sessions.ts";
import { CREATE, CREATE_OF_SET } from "./statements.ts";

/**
 * Two connections, because every creation locks its groups' rows (PostgreSQL 16 and newer): 20 in one transaction on one connection went six times as fast as 8 connections with one each
 * (attack.md A2). So few at a time, because with 4096 iterations each costs the server 3 ms.
 */
const LANES = 2;
const MAX = 40;

interface Creation {
  readonly login: NewLogin<PostgresRoleConfig>;
  readonly verifier: string;
}

type Row = { readonly login: string; readonly role_oid: string; readonly system_identifier: string };

/** Creations of logins, gathered by what one call of `create_logins` has in common: groups, connection limit, statement set, whether they may log in. */
export class Creations {
  readonly #sessions: Sessions;
  readonly #instance: string;
  readonly #kinds = new Map<string, Gather<Creation, Row>>();

  constructor(sessions: Sessions, instance: string) {
    this.#sessions = sessions;
    this.#instance = instance;
  }

  /** Throws TARGET_*. */
  async create(login: NewLogin<PostgresRoleConfig>): Promise<CreatedLogin> {
    const { role, name } = login;
    const verifier = await scramVerifier(login.password, role.scramIterations);
    const row = await this.#kind(login).add({ login, verifier });
    const { host, port } = this.#sessions.config;
    return { oid: row.role_oid, systemIdentifier: row.system_identifier, connection: { host, port: String(port), database: role.database, username: name } };
  }

  #kind({ role, enabled }: NewLogin<PostgresRoleConfig>): Gather<Creation, Row> {
    const key = JSON.stringify([role.memberOf, role.connectionLimit, role.statementSet, enabled]);
    const known = this.#kinds.get(key);
    if (known !== undefined) return known;
    const made = new Gather<Creation, Row>({
      run: (items) => this.#run(items),
      lanes: LANES,
      max: MAX,
      divide: (error) => isReason(error, "TARGET_MISCONFIGURED"),
    });
    this.#kinds.set(key, made);
    return made;
  }

  /** All or none. The earliest deadline holds for all: they were asked for within milliseconds. */
  async #run(items: readonly Creation[]): Promise<(Row | Error)[]> {
    const logins = items.map((item) => item.login);
    const { role, enabled } = logins[0]!;
    const rows = await this.#sessions.query<Row>(role.statementSet === undefined ? CREATE : CREATE_OF_SET, [
      this.#instance,
      logins.map((login) => login.name),
      items.map((item) => item.verifier),
      logins.map((login) => Math.ceil(login.validForMs)),
      role.memberOf,
      role.connectionLimit ?? null,
      Math.floor(Math.min(...logins.map((login) => login.deadlineAt))),
      enabled ?? true,
      ...(role.statementSet === undefined ? [] : [role.statementSet]),
    ]);
    const byName = new Map(rows.map((row) => [row.login, row]));
    return logins.map((login) => byName.get(login.name) ?? misconfigured("not_bootstrapped"));
  }
}
