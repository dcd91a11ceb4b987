import type { Sensitive } from "../../base/sensitive.ts";
import type { PreflightCheck } from "../engine.ts";
import type { PasswordChange, StaticLogin, StaticLogins } from "../static-login.ts";
import { DEFAULT_SCRAM_ITERATIONS } from "./config.ts";
import { scramVerifier } from "./scram.ts";
import type { Sessions } from "./sessions.ts";
import { PROBLEM_STATIC_LOGINS, SET_STATIC_LOGIN } from "./statements.ts";

/** By the functions of sql/90-static-logins.sql, which hold the fence and the list. A login has one password at a time: `keep` can't be met. */
export class PostgresStaticLogins implements StaticLogins {
  readonly #sessions: Sessions;
  readonly #instance: string;

  constructor(sessions: Sessions, instance: string) {
    this.#sessions = sessions;
    this.#instance = instance;
  }

  async setPassword({ login, password, rotation, generation, deadlineAt }: PasswordChange): Promise<void> {
    const verifier = await scramVerifier(password, DEFAULT_SCRAM_ITERATIONS);
    await this.#sessions.query(SET_STATIC_LOGIN, [this.#instance, login.name, login.owner ?? null, verifier, rotation, generation, Math.floor(deadlineAt)]);
  }

  /** By our own wrapper, which proves the password by SCRAM alone: a server that asks for it in clear, or for none, doesn't get it and isn't believed. */
  async tryLogin(login: string, password: Sensitive, database = this.#sessions.config.database): Promise<void> {
    const client = await this.#sessions.connectAs(login, database, password);
    await client.end().catch(() => {});
  }

  async check(logins: readonly StaticLogin[]): Promise<readonly PreflightCheck[]> {
    return Promise.all(
      logins.map(async ({ name, owner }) => {
        const rows = await this.#sessions.query<{ problem: string }>(PROBLEM_STATIC_LOGINS, [this.#instance, [name], owner ?? null]);
        const problem = rows[0]?.problem;
        return {
          name: `static_login ${name}`,
          ok: problem === undefined,
          detail: problem === undefined ? "its password may be set" : advice(problem, name, owner),
        };
      }),
    );
  }
}

function advice(problem: string, name: string, owner: string | undefined): string {
  switch (problem) {
    case "missing":
      return `login ${name} does not exist: create it, then run leasehold target bootstrap with --allow-login`;
    case "too_powerful":
      return `login ${name} is, or is a member of, a superuser, a role with CREATEROLE, REPLICATION or BYPASSRLS, a predefined role, or a broker's own: its password is not the broker's to set`;
    case "not_a_member":
      return `login ${name} is no member of ${owner}, or that is no NOLOGIN role: GRANT it, so that both logins have the same rights and objects`;
    default:
      return `login ${name} is not on the target's list: run leasehold target bootstrap with --allow-login`;
  }
}
