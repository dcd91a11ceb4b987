import { isReason, LeaseholdError } from "../../base/errors.ts";
import { Gather } from "../../base/gather.ts";
import type { Sensitive } from "../../base/sensitive.ts";
import type {
  CreatedLogin,
  ListedLogin,
  LoginRef,
  NewLogin,
  OpenOptions,
  PreflightCheck,
  RevokeResult,
  SeenLogin,
  Target,
  TargetIdentity,
  Witness,
} from "../engine.ts";
import { isInstance } from "../names.ts";
import { DEFAULT_SCRAM_ITERATIONS, type PostgresRoleConfig, type PostgresTargetConfig } from "./config.ts";
import { Creations } from "./create.ts";
import { misconfigured } from "./faults.ts";
import { preflight } from "./preflight.ts";
import { type Disabled, disableAll, endAll } from "./revoke.ts";
import { scramVerifier } from "./scram.ts";
import { serverOf } from "./server.ts";
import type { StaticLogins } from "../static-login.ts";
import { Sessions } from "./sessions.ts";
import { PostgresStaticLogins } from "./static-logins.ts";
import { ENABLE, FIND, IDENTIFY, LIST, MOVE_WITNESS, PRESENT, RENEW, WITNESS, SET_BROKER_LOGIN } from "./statements.ts";

/** Most of a revocation is waiting, without a connection, for sessions that may still appear: so many batches at a time keep the server busy. */
const END_LANES = 6;
const REVOKE_MAX = 500;
const ALTER_LANES = 2;
const ALTER_MAX = 200;

interface Alteration {
  readonly login: LoginRef;
  readonly validForMs: number;
  /** Of the target's clock, Unix milliseconds; only for enabling. */
  readonly deadlineAt: number;
}

/** One PostgreSQL server seen through the functions of its `leasehold` schema; the broker's login there can do nothing else. */
export class PostgresTarget implements Target<PostgresRoleConfig> {
  readonly #sessions: Sessions;
  readonly #options: OpenOptions;
  readonly staticLogins: StaticLogins;
  readonly #creations: Creations;
  readonly #enabling: Gather<Alteration, true>;
  readonly #renewing: Gather<Alteration, true>;
  readonly #disabling: Gather<LoginRef, Disabled>;
  readonly #ending: Gather<Disabled, RevokeResult>;

  constructor(config: PostgresTargetConfig, password: Sensitive, options: OpenOptions) {
    if (!isInstance(options.instance)) throw new RangeError("malformed instance");
    this.#sessions = new Sessions(config, password, options);
    this.#options = options;
    this.staticLogins = new PostgresStaticLogins(this.#sessions, options.instance);
    this.#creations = new Creations(this.#sessions, options.instance);
    const divide = (error: unknown): boolean => isReason(error, "TARGET_MISCONFIGURED");
    // (One whose deadline has passed sinks none that has longer.)
    const divideLate = (error: unknown): boolean => divide(error) || (error instanceof LeaseholdError && error.metadata["problem"] === "deadline_passed");
    this.#enabling = new Gather({ run: (items) => this.#enable(items), lanes: ALTER_LANES, max: ALTER_MAX, divide: divideLate });
    this.#renewing = new Gather({ run: (items) => this.#renew(items), lanes: ALTER_LANES, max: ALTER_MAX, divide });
    this.#disabling = new Gather({ run: (logins) => disableAll(this.#sessions, options, logins), lanes: ALTER_LANES, max: REVOKE_MAX, divide });
    this.#ending = new Gather({ run: (logins) => endAll(this.#sessions, options, logins), lanes: END_LANES, max: REVOKE_MAX, divide });
  }

  identify(): Promise<TargetIdentity> {
    return identify(this.#sessions, this.#options);
  }

  create(login: NewLogin<PostgresRoleConfig>): Promise<CreatedLogin> {
    return this.#creations.create(login);
  }

  async enable(login: LoginRef, validForMs: number, deadlineAt: number): Promise<void> {
    await this.#enabling.add({ login, validForMs, deadlineAt });
  }

  async renew(login: LoginRef, validForMs: number): Promise<void> {
    await this.#renewing.add({ login, validForMs, deadlineAt: 0 });
  }

  async revoke(login: LoginRef): Promise<RevokeResult> {
    return this.#ending.add(await this.#disabling.add(login));
  }

  async find(name: string): Promise<{ readonly oid: string; readonly canLogin: boolean } | undefined> {
    const [row] = await this.#sessions.query<{ role_oid: string; can_login: boolean }>(FIND, [this.#options.instance, [name]]);
    return row && { oid: row.role_oid, canLogin: row.can_login };
  }

  async list(after: string, limit: number): Promise<readonly ListedLogin[]> {
    const rows = await this.#sessions.query<{ login: string; role_oid: string }>(LIST, [this.#options.instance, after, limit]);
    return rows.map((row) => ({ name: row.login, oid: row.role_oid }));
  }

  async present(names: readonly string[]): Promise<ReadonlyMap<string, SeenLogin>> {
    const rows = await this.#sessions.query<{ login: string; can_login: boolean; valid_for_ms: number | null }>(PRESENT, [this.#options.instance, names]);
    return new Map(rows.map((row) => [row.login, { canLogin: row.can_login, validForMs: row.valid_for_ms ?? undefined }]));
  }

  async witness(): Promise<Witness | undefined> {
    const [row] = await this.#sessions.query<Witness>(WITNESS, [this.#options.instance]);
    return row && { epoch: row.epoch, mark: row.mark };
  }

  async moveWitness(from: string | undefined, to: Witness): Promise<boolean> {
    const [row] = await this.#sessions.query<{ moved: boolean }>(MOVE_WITNESS, [this.#options.instance, from ?? null, to.epoch, to.mark]);
    return row!.moved;
  }

  async setBrokerLogin(login: string, password: Sensitive, deadlineAt: number): Promise<void> {
    const verifier = await scramVerifier(password, DEFAULT_SCRAM_ITERATIONS);
    await this.#sessions.query(SET_BROKER_LOGIN, [this.#options.instance, login, verifier, Math.floor(deadlineAt)]);
  }

  preflight(role: PostgresRoleConfig | undefined): Promise<readonly PreflightCheck[]> {
    return preflight(this, this.#sessions, this.#options, role);
  }

  close(): Promise<void> {
    return this.#sessions.close();
  }

  /** The earliest deadline holds for all; once it has passed, those that have longer go by themselves. */
  async #enable(items: readonly Alteration[]): Promise<(true | Error)[]> {
    const deadlineAt = Math.min(...items.map((item) => item.deadlineAt));
    const [names, oids, times] = columns(items);
    await this.#sessions.query(ENABLE, [this.#options.instance, names, oids, times, Math.floor(deadlineAt), serverOf(items)]);
    return items.map(() => true);
  }

  async #renew(items: readonly Alteration[]): Promise<(true | Error)[]> {
    const [names, oids, times] = columns(items);
    const rows = await this.#sessions.query<{ login: string }>(RENEW, [this.#options.instance, names, oids, times, serverOf(items)]);
    const there = new Set(rows.map((row) => row.login));
    return items.map((item) => (there.has(item.login.name) ? true : misconfigured("login_missing")));
  }
}

function columns(items: readonly Alteration[]): readonly [string[], (string | null)[], number[]] {
  return [items.map((item) => item.login.name), items.map((item) => item.login.oid ?? null), items.map((item) => Math.ceil(item.validForMs))];
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
