import type { Sensitive } from "../../base/sensitive.ts";
import type { CreatedLogin, ListedLogin, LoginRef, NewLogin, OpenOptions, PreflightCheck, RevokeResult, SeenLogin, Target, TargetIdentity } from "../engine.ts";
import { isInstance } from "../names.ts";
import { deadlinePassed, misconfigured, requireLifetime, requireOwn } from "../own-login.ts";
import { type Account, accountsOf, accountsUnder, creation } from "./accounts.ts";
import { MAX_NAME_BYTES } from "./abilities.ts";
import type { MysqlRoleConfig, MysqlTargetConfig } from "./config.ts";
import { underLock } from "./lock.ts";
import { preflight } from "./preflight.ts";
import { quoteAccount } from "./quote.ts";
import { revoke } from "./revoke.ts";
import { identify, requireServer, timeOf } from "./server.ts";
import { Sessions } from "./sessions.ts";

/**
 * One MySQL or MariaDB server and its accounts.
 *
 * The fence against a worker that froze amid a creation is a lock of the login's name, held by the session that creates: whoever revokes or looks
 * for the name takes it too. So either the creator still has it and he waits, or its session is over and nothing of it can come any more,
 * or the creation begins afterwards and finds its deadline passed on the server's clock. Locks are of one server: no Galera, no proxy between.
 */
export class MysqlTarget implements Target<MysqlRoleConfig> {
  readonly maxNameBytes = MAX_NAME_BYTES;
  readonly #sessions: Sessions;
  readonly #options: OpenOptions;

  constructor(config: MysqlTargetConfig, password: Sensitive, options: OpenOptions) {
    if (!isInstance(options.instance)) throw new RangeError("malformed instance");
    this.#sessions = new Sessions(config, password, options);
    this.#options = options;
  }

  identify(): Promise<TargetIdentity> {
    return this.#sessions.use((session) => identify(session, this.#options));
  }

  async create(login: NewLogin<MysqlRoleConfig>): Promise<CreatedLogin> {
    const { name, role } = login;
    this.#requireOwn(name);
    requireLifetime(login.validForMs);
    return this.#sessions.use((session) =>
      underLock(session, name, async () => {
        const server = await requireServer(session, undefined);
        if ((await accountsOf(session, server, name)).length > 0) throw misconfigured("name_taken");
        if ((await timeOf(session)) > login.deadlineAt) throw deadlinePassed();
        const { make, enable } = creation(server, name, login.password, role);
        try {
          // oxlint-disable-next-line no-await-in-loop -- in order
          for (const sql of make) await session.rows(sql);
          if ((await timeOf(session)) > login.deadlineAt) throw deadlinePassed();
          await session.rows(enable);
        } catch (error) {
          await session.rows(`DROP USER IF EXISTS ${quoteAccount(name, role.hostPattern)}`).catch(() => {}); // what stays is locked, and the ledger's
          throw error;
        }
        const [made] = await accountsOf(session, server, name);
        const { host, port } = this.#sessions.config;
        return {
          oid: made!.oid,
          systemIdentifier: server.id,
          connection: { host, port: String(port), username: name, ...(role.database === undefined ? {} : { database: role.database }) },
        };
      }),
    );
  }

  /** The server ends nothing by itself, so there is nothing to move: only that the login is there. */
  async renew(login: LoginRef, validForMs: number): Promise<void> {
    this.#requireOwn(login.name);
    requireLifetime(validForMs);
    await this.#sessions.use(async (session) => {
      const server = await requireServer(session, login.systemIdentifier);
      const accounts = await accountsOf(session, server, login.name);
      if (!accounts.some((account) => login.oid === undefined || account.oid === login.oid)) throw misconfigured("login_missing");
    });
  }

  async revoke(login: LoginRef): Promise<RevokeResult> {
    this.#requireOwn(login.name);
    return this.#sessions.use((session) => underLock(session, login.name, () => revoke(session, this.#options, login)));
  }

  async find(name: string): Promise<{ readonly oid: string; readonly canLogin: boolean } | undefined> {
    this.#requireOwn(name);
    const account = await this.#sessions.use((session) =>
      underLock(session, name, async (): Promise<Account | undefined> => (await accountsOf(session, await requireServer(session, undefined), name))[0]),
    );
    return account && { oid: account.oid, canLogin: !account.locked };
  }

  list(after: string, limit: number): Promise<readonly ListedLogin[]> {
    return this.#sessions.use(async (session) =>
      accountsUnder(session, await requireServer(session, undefined), `lh_${this.#options.instance}_`, after, limit),
    );
  }

  present(names: readonly string[]): Promise<ReadonlyMap<string, SeenLogin>> {
    return this.#sessions.use(async (session) => {
      const server = await requireServer(session, undefined);
      const there = new Map<string, SeenLogin>();
      for (const name of names) {
        // oxlint-disable-next-line no-await-in-loop -- one connection
        const accounts = await accountsOf(session, server, name);
        if (accounts.length > 0) there.set(name, { canLogin: accounts.some((account) => !account.locked), validForMs: undefined });
      }
      return there;
    });
  }

  preflight(role: MysqlRoleConfig | undefined): Promise<readonly PreflightCheck[]> {
    return preflight(this, this.#sessions, this.#options, role);
  }

  close(): Promise<void> {
    return this.#sessions.close();
  }

  #requireOwn(name: string): void {
    requireOwn(this.#options.instance, name);
    if (name.length > MAX_NAME_BYTES) throw misconfigured("malformed");
  }
}
