import type { Sensitive } from "../base/sensitive.ts";
import type { Clock } from "../base/clock.ts";
import type { StaticLogins } from "./static-login.ts";

/**
 * What the lease ledger asks of a kind of target system. An engine is one folder beside this file plus one line in `registry.ts`
 * (and its configuration as a `oneof` field in the proto); it passes `test/conformance/engine.ts`.
 *
 * An engine holds no truth: every name, oid and deadline comes from the ledger, which has committed it before the target is touched.
 */
export interface EngineDefinition<Config = unknown, RoleConfig = unknown> {
  /** Second segment of its role paths: `credentials/<name>/...`. */
  readonly name: string;
  readonly abilities: EngineAbilities;
  /** Field violations of a configuration that came from a manifest; empty when it is good. No I/O. */
  checkTarget(config: Config): readonly Violation[];
  checkRole(config: RoleConfig): readonly Violation[];
  /** Opens lazily: no I/O before the first call on the result. `password` is the broker's own login on the target. */
  open(config: Config, password: Sensitive, options: OpenOptions): Target<RoleConfig>;
}

/** The longest lease where the server ends no login by itself (`serverExpiry` false): so long a login may live that nobody can take away. Milliseconds. */
export const MAX_TTL_WITHOUT_SERVER_EXPIRY_MS = 24 * 3_600_000;

export interface Violation {
  /** Proto field path below the configuration message, e.g. `member_of[1]`. */
  readonly field: string;
  readonly description: string;
}

/** What an engine can't do shortens the maximum TTL and is printed by `target test` (attack.md finding 24). */
export interface EngineAbilities {
  /** Logins can be made ahead, unable to log in, and enabled when they are issued: `create` with `enabled` false, and `enable`. */
  readonly warmPool?: true;
  readonly serverExpiry: boolean;
  readonly sessionKill: boolean;
  readonly fencing: boolean;
  readonly hashedPassword: boolean;
  readonly enumerable: boolean;
  /** The broker's own login can be rotated: `setBrokerLogin`. */
  readonly loginRotation?: true;
}

export interface OpenOptions {
  readonly clock: Clock;
  /** Name prefix of this broker on its targets: roles are called `lh_<instance>_...`. */
  readonly instance: string;
  readonly connectTimeoutMs: number;
  readonly statementTimeoutMs: number;
  /** Of this process to one target. */
  readonly maxConnections: number;
  /** Of all replicas to this target; undefined: no other limit. An engine asks for a place before it opens a connection, and gives it back when that is closed. */
  readonly limit?: ConnectionLimit | undefined;
}

export interface ConnectionLimit {
  /** For the first connection. Answers what gives the place back. Throws TARGET_UNAVAILABLE `busy` after `patienceMs`. */
  acquire(patienceMs: number): Promise<() => void>;
  /** For one more; undefined when there is none. */
  tryAcquire(): Promise<(() => void) | undefined>;
  /** Calls `listener` every second or so in which another replica waits for its first place and this one has more than its share: one connection is to be closed. Answers what ends it. */
  onScarce(listener: () => void): () => void;
}

export interface TargetIdentity {
  /** Stable identity of the server's data, e.g. PostgreSQL's system identifier. */
  readonly systemIdentifier: string;
  readonly timeline: number;
  readonly inRecovery: boolean;
  readonly serverVersion: string;
  /** Target's clock minus ours, in milliseconds. */
  readonly clockSkewMs: number;
}

/** A login to create; chosen and committed to the ledger first. */
export interface NewLogin<RoleConfig> {
  readonly name: string;
  readonly password: Sensitive;
  readonly role: RoleConfig;
  /** VALID UNTIL on the target's own clock: now() + this many milliseconds (lease time left + grace). */
  readonly validForMs: number;
  /** The target refuses to make the login usable after this instant of its own clock (fence against frozen workers). Unix milliseconds. */
  readonly deadlineAt: number;
  /** False for a warm pool: the login exists, and can't log in before `enable`. Absent: true. */
  readonly enabled?: boolean;
}

/** What revocation will need, sealed into the lease: it must not depend on configuration that may be gone (lesson 7). */
export interface LoginRef {
  readonly name: string;
  /** The role's oid on PostgreSQL; `undefined` while the creation's answer is unknown. */
  readonly oid: string | undefined;
  /** Absent counts as success only on the server with this identifier (finding 12); `undefined` while unknown. */
  readonly systemIdentifier: string | undefined;
  readonly ownedObjects: OwnedObjects;
  /** Statements that the target's superuser installed by this name, and the login was made with; PostgreSQL only. */
  readonly statementSet?: string | undefined;
}

export type OwnedObjects = { readonly kind: "refuse" } | { readonly kind: "drop" } | { readonly kind: "reassign_to"; readonly role: string };

export interface CreatedLogin {
  readonly oid: string;
  readonly systemIdentifier: string;
  /** What the client connects with, without the password: `host`, `port`, `database`, `username`. */
  readonly connection: Readonly<Record<string, string>>;
}

export type RevokeResult = "revoked" | "absent";

/**
 * One target system. Calls may come by the thousand at a time: an engine that can do many in one round trip gathers them (src/base/gather.ts). Every method has its own timeout, and fails with a LeaseholdError: TARGET_UNAVAILABLE (try again, nothing is known),
 * TARGET_MISCONFIGURED (try again, but somebody must act; metadata `problem` says what, without secrets).
 */
export interface Target<RoleConfig> {
  /** Longest name of a login (`loginName`); absent: 63. */
  readonly maxNameBytes?: number;
  identify(): Promise<TargetIdentity>;
  /** Creates the login, usable at once. Idempotent by name: creating the same name again is an error TARGET_MISCONFIGURED `problem: name_taken`. */
  create(login: NewLogin<RoleConfig>): Promise<CreatedLogin>;
  /** Lets a login that was created with `enabled` false log in from now on, until now() + validForMs of the target's clock; refused by the target after `deadlineAt`. Only with the ability `warmPool`. */
  enable?(login: LoginRef, validForMs: number, deadlineAt: number): Promise<void>;
  /** Moves VALID UNTIL to the target's now() + validForMs; never touches the right to log in. */
  renew(login: LoginRef, validForMs: number): Promise<void>;
  /** The safe order of architecture 4.3; idempotent; `absent` only when the server is the login's own and not in recovery. */
  revoke(login: LoginRef): Promise<RevokeResult>;
  /** Looks a login up by name; used by crash recovery. */
  find(name: string): Promise<{ readonly oid: string; readonly canLogin: boolean } | undefined>;
  /** Logins named for this instance, in name order, after `after` (empty: from the start). Only and always on engines with `abilities.enumerable`, as the one below. */
  list?(after: string, limit: number): Promise<readonly ListedLogin[]>;
  /** Those of these names that are there, and what is seen of them. */
  present?(names: readonly string[]): Promise<ReadonlyMap<string, SeenLogin>>;
  /** The mark that a ledger of this instance left here last, on engines that can keep one, as the one below; `undefined` when there is none. Fails on a standby. */
  witness?(): Promise<Witness | undefined>;
  /** Compare-and-set of the witness from the mark `from` (`undefined`: there is none). False when another was faster, or is of a later epoch. */
  moveWitness?(from: string | undefined, to: Witness): Promise<boolean>;
  /** Sets the password of the other of the broker's own two logins, never of the one in use; refused by the target after `deadlineAt`. Absent where an engine can't. */
  setBrokerLogin?(login: string, password: Sensitive, deadlineAt: number): Promise<void>;
  /** Passwords of logins that applications have already. Absent where the engine can't set them. */
  readonly staticLogins?: StaticLogins;
  /** Tries a throw-away login through its whole life, and names the missing grant or setting. */
  preflight(role: RoleConfig | undefined): Promise<readonly PreflightCheck[]>;
  close(): Promise<void>;
}

export interface ListedLogin {
  readonly name: string;
  readonly oid: string;
}

/** A login as it is on the target now; undefined is what the engine does not say. */
export interface SeenLogin {
  readonly canLogin: boolean | undefined;
  /** Until its VALID UNTIL, by the target's clock; negative once it has passed. */
  readonly validForMs: number | undefined;
}

export interface Witness {
  readonly epoch: number;
  /** A UUID that the ledger knows, if it is the one that wrote it. */
  readonly mark: string;
}

export interface PreflightCheck {
  readonly name: string;
  readonly ok: boolean;
  /** What is wrong and how to mend it, constant apart from identifiers; no secret. */
  readonly detail: string;
}
