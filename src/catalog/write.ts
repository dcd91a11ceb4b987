import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { invalid, LeaseholdError } from "../base/errors.ts";
import type { Sensitive } from "../base/sensitive.ts";
import { type EngineAbilities, MAX_TTL_WITHOUT_SERVER_EXPIRY_MS } from "../engines/engine.ts";
import { keyIdOf, seal } from "../crypto/envelope.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { Actor } from "../model/audit.ts";
import { passwordPolicyViolation } from "../engines/generate.ts";
import { isUsernameTemplate } from "../engines/names.ts";
import type { PasswordPolicyConfig, PoolConfig, QuotaConfig, TargetRecord, UpkeepConfig } from "../model/target.ts";
import type { Command, CommandKind, Committer, Outcome } from "../store/command.ts";
import { refusal } from "../store/group-committer.ts";
import { targetBinding } from "./binding.ts";
import type { Catalog } from "./catalog.ts";
import type { OpenTargets } from "./open-targets.ts";

export interface TargetInput {
  readonly name: string;
  readonly engine: string;
  readonly config: object;
  /** Undefined: the defaults. */
  readonly upkeep?: UpkeepConfig | undefined;
  /** Undefined keeps the stored one, which only a target that still points to the same place may. */
  readonly password: Sensitive | undefined;
}

export interface RoleInput {
  readonly path: string;
  readonly target: string;
  readonly engine: string;
  readonly defaultTtlMs: number;
  readonly maxTtlMs: number;
  readonly pool?: PoolConfig | undefined;
  readonly usernameTemplate?: string | undefined;
  readonly passwordPolicy?: PasswordPolicyConfig | undefined;
  readonly quotas?: QuotaConfig | undefined;
  readonly config: object;
}

export interface Write {
  readonly etag: string;
  readonly dryRun: boolean;
  readonly actor: Actor;
  readonly request: Command["request"];
}

export interface Written {
  readonly revision: number;
  /** False for a dry run or a replay. */
  readonly recorded: boolean;
}

const MAX_TRIES = 5;

/** Writes targets and roles: the engine checks them, the committer stores them. */
export class CatalogWriter {
  readonly #catalog: Catalog;
  readonly #targets: OpenTargets;
  readonly #keyring: Keyring;
  readonly #committer: Committer;

  constructor(catalog: Catalog, targets: OpenTargets, keyring: Keyring, committer: Committer) {
    this.#catalog = catalog;
    this.#targets = targets;
    this.#keyring = keyring;
    this.#committer = committer;
  }

  /** Throws REQUEST_INVALID (every violation at once), VERSION_MISMATCH, CONFLICT. */
  async putTarget(input: TargetInput, write: Write): Promise<Written> {
    const engine = this.#targets.engine(input.engine);
    throwViolations(engine.checkTarget(input.config), `target.${input.engine}`);
    checkUpkeep(input.upkeep, engine.abilities);
    for (let i = 0; i < MAX_TRIES; i++) {
      const known = await this.#catalog.refreshTarget(input.name);
      requirePassword(known, input);
      if (write.dryRun) return { revision: 0, recorded: false };
      const uid = known?.uid ?? randomUUID();
      const sealed = input.password === undefined ? undefined : seal(this.#keyring, targetBinding(uid), input.password.reveal());
      const args = {
        uid,
        name: input.name,
        engine: input.engine,
        document: JSON.stringify(input.config),
        upkeep: input.upkeep ?? {},
        generation: known?.generation ?? 0,
        etag: write.etag,
        ...(sealed === undefined ? {} : { sealed: Buffer.from(sealed).toString("base64"), key_id: keyIdOf(sealed) }),
      };
      const outcome = await this.#commit("target.put", `targets/${input.name}`, args, write);
      if (!outcome.ok && outcome.reason === "STALE") continue;
      const written = finish(outcome);
      await this.#catalog.refreshTarget(input.name);
      return written;
    }
    throw new LeaseholdError("STORE_UNAVAILABLE", "the target kept changing", { retryAfterMs: 100 });
  }

  /** Throws REQUEST_INVALID, TARGET_NOT_FOUND, VERSION_MISMATCH, CONFLICT. */
  async putRole(input: RoleInput, write: Write): Promise<Written> {
    const engine = this.#targets.engine(input.engine);
    throwViolations(engine.checkRole(input.config), `role.${input.engine}`);
    if (!engine.abilities.serverExpiry && input.maxTtlMs > MAX_TTL_WITHOUT_SERVER_EXPIRY_MS)
      throw invalid("role.max_ttl", "must be at most 24 h: this kind of server ends no login by itself");
    if (input.pool !== undefined && engine.abilities.warmPool !== true) throw invalid("role.pool", "is not possible with this engine");
    const target = this.#catalog.target(input.target) ?? (await this.#catalog.refreshTarget(input.target));
    if (target === undefined || target.engine !== input.engine) throw new LeaseholdError("TARGET_NOT_FOUND");
    if (write.dryRun) return { revision: 0, recorded: false };
    checkNaming(input);
    const { defaultTtlMs, maxTtlMs, pool, usernameTemplate, passwordPolicy, quotas, config } = input;
    const document = JSON.stringify({ defaultTtlMs, maxTtlMs, pool, usernameTemplate, passwordPolicy, quotas, config });
    const written = finish(await this.#commit("role.put", input.path, { target: input.target, engine: input.engine, document, etag: write.etag }, write));
    await this.#catalog.refreshRole(input.path);
    return written;
  }

  /** Throws TARGET_NOT_FOUND, IN_USE. */
  async deleteTarget(name: string, write: Write): Promise<Written> {
    const written = finish(await this.#commit("target.delete", `targets/${name}`, { name }, write));
    await this.#catalog.refreshTarget(name);
    return written;
  }

  /** Throws ROLE_NOT_FOUND. */
  async deleteRole(path: string, write: Write): Promise<Written> {
    const written = finish(await this.#commit("role.delete", path, {}, write));
    await this.#catalog.refreshRole(path);
    return written;
  }

  #commit(kind: CommandKind, path: string, args: Command["args"], { actor, request }: Write): Promise<Outcome> {
    return this.#committer.commit({ kind, path, actor, request, args });
  }
}

/** Whoever may edit a target must not be able to send its password to a server of his own (finding 23). */
function requirePassword(known: TargetRecord | undefined, input: TargetInput): void {
  if (input.password !== undefined) return;
  if (known === undefined) throw invalid("target.password", "is needed for a new target");
  if (known.engine !== input.engine || !isDeepStrictEqual(connectionOf(known.config), connectionOf(input.config))) {
    throw invalid("target.password", "is needed again when the connection changes");
  }
}

/** Throws REQUEST_INVALID for what the engine can't do. */
function checkUpkeep(upkeep: UpkeepConfig = {}, { enumerable, loginRotation }: EngineAbilities): void {
  if (upkeep.rotateLoginEveryMs !== undefined && loginRotation !== true) throw invalid("target.upkeep.rotate_login_every", "is not possible with this engine");
  if (enumerable) return;
  if (upkeep.orphans !== undefined) throw invalid("target.upkeep.orphans", "is not possible with this engine: it can't list its logins");
  if (upkeep.scanIntervalMs !== undefined) throw invalid("target.upkeep.scan_interval", "is not possible with this engine: it can't list its logins");
}

/** Throws REQUEST_INVALID. */
function checkNaming({ usernameTemplate: template, passwordPolicy: policy, pool }: RoleInput): void {
  if (template !== undefined && !isUsernameTemplate(template)) {
    throw invalid("role.username_template", "must be of [a-z0-9_], {{role}}, {{principal}} and {{unix_time}}, at most 128 characters");
  }
  if (pool !== undefined && template?.includes("{{principal}}") === true)
    throw invalid("role.username_template", "can't name the principal of a login made ahead for a pool");
  const violation = policy === undefined ? undefined : passwordPolicyViolation(policy);
  if (violation !== undefined) throw invalid(`role.password_policy.${violation.field}`, violation.description);
}

/** What decides where the password goes. */
function connectionOf(config: object): object {
  const { maxConnections: _, ...connection } = JSON.parse(JSON.stringify(config)) as { readonly maxConnections?: number };
  return connection;
}

function throwViolations(violations: readonly { readonly field: string; readonly description: string }[], below: string): void {
  if (violations.length === 0) return;
  throw new LeaseholdError("REQUEST_INVALID", "configuration", {
    violations: violations.map(({ field, description }) => ({ field: `${below}.${field}`, description })),
  });
}

function finish(outcome: Outcome): Written {
  if (!outcome.ok) throw refusal(outcome);
  return { revision: outcome.revision, recorded: outcome.replay !== true };
}
