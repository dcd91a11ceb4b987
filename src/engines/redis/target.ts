import type { Redis } from "ioredis";
import type { Sensitive } from "../../base/sensitive.ts";
import type { CreatedLogin, ListedLogin, LoginRef, NewLogin, OpenOptions, PreflightCheck, RevokeResult, SeenLogin, Target, TargetIdentity } from "../engine.ts";
import { isInstance } from "../names.ts";
import { deadlinePassed, misconfigured, requireLifetime, requireOwn } from "../own-login.ts";
import type { RedisRoleConfig, RedisTargetConfig } from "./config.ts";
import { preflight } from "./preflight.ts";
import { identify, requireServer, save, throwFirst, timeOf } from "./server.ts";
import type { StaticLogins } from "../static-login.ts";
import { Sessions } from "./sessions.ts";
import { RedisStaticLogins } from "./static-logins.ts";
import { aclHash, FENCE_SECONDS, fenceKey, getUser, oidOf } from "./users.ts";

/** How often another revocation or look at the same name may come in between. */
const END_TRIES = 10;

/**
 * One Redis or Valkey server and its ACL users.
 *
 * ACL SETUSER makes a user that isn't there, so a worker that froze before it and wakes up after the revocation would bring the login back
 * (attack.md A11). Hence the fence, a key for each name: a creation watches it, then looks at the server's clock, then makes the user in a
 * transaction; whoever revokes or looks for the name writes the key first. Of two orders, one breaks the transaction, and in the other the
 * creation finds its deadline passed.
 */
export class RedisTarget implements Target<RedisRoleConfig> {
  readonly #sessions: Sessions;
  readonly #options: OpenOptions;
  readonly staticLogins: StaticLogins;

  constructor(config: RedisTargetConfig, password: Sensitive, options: OpenOptions) {
    if (!isInstance(options.instance)) throw new RangeError("malformed instance");
    this.#sessions = new Sessions(config, password, options);
    this.#options = options;
    this.staticLogins = new RedisStaticLogins(this.#sessions, config, options);
  }

  identify(): Promise<TargetIdentity> {
    return this.#sessions.use((redis) => identify(redis, this.#options));
  }

  async create(login: NewLogin<RedisRoleConfig>): Promise<CreatedLogin> {
    const { name, role } = login;
    const { instance } = this.#options;
    requireOwn(instance, name);
    requireLifetime(login.validForMs);
    const hash = aclHash(login.password);
    return this.#sessions.use(async (redis) => {
      const systemIdentifier = await requireServer(redis, instance, undefined);
      const fence = fenceKey(instance, name);
      await redis.watch(fence);
      if ((await getUser(redis, name)) !== undefined) throw misconfigured("name_taken");
      if ((await timeOf(redis)) > login.deadlineAt) throw deadlinePassed();
      const rights = ["reset", "resetkeys", "resetchannels", "-@all", "on", `#${hash}`, ...role.rules];
      const done = await redis
        .multi()
        .call("ACL", "SETUSER", name, ...rights)
        .set(fence, "made", "EX", FENCE_SECONDS)
        .exec();
      // Somebody made, revoked or looked for this very name meanwhile.
      if (!throwFirst(done)) throw deadlinePassed();
      await save(redis);
      const { host, port } = this.#sessions.config;
      return { oid: oidOf(hash), systemIdentifier, connection: { host, port: String(port), username: name } };
    });
  }

  /** The server ends nothing by itself, so there is nothing to move: only that the login is there. */
  async renew(login: LoginRef, validForMs: number): Promise<void> {
    requireOwn(this.#options.instance, login.name);
    requireLifetime(validForMs);
    await this.#sessions.use(async (redis) => {
      await requireServer(redis, this.#options.instance, login.systemIdentifier);
      if ((await this.#userOf(redis, login)) === undefined) throw misconfigured("login_missing");
    });
  }

  async revoke(login: LoginRef): Promise<RevokeResult> {
    const { name } = login;
    const { instance } = this.#options;
    requireOwn(instance, name);
    return this.#sessions.use(async (redis) => {
      await requireServer(redis, instance, login.systemIdentifier);
      await redis.set(fenceKey(instance, name), "ended", "EX", FENCE_SECONDS);
      if ((await this.#userOf(redis, login)) === undefined) {
        await save(redis); // an earlier try may have failed just there
        return "absent";
      }
      await endUser(redis, fenceKey(instance, name), name);
      await save(redis);
      if ((await getUser(redis, name)) !== undefined) throw misconfigured("login_enabled");
      return "revoked";
    });
  }

  async find(name: string): Promise<{ readonly oid: string; readonly canLogin: boolean } | undefined> {
    const { instance } = this.#options;
    requireOwn(instance, name);
    return this.#sessions.use(async (redis) => {
      // First the fence: what is not there now can't come any more, if its deadline has passed.
      await redis.set(fenceKey(instance, name), "sought", "EX", FENCE_SECONDS);
      const user = await getUser(redis, name);
      return user && { oid: oidOf(user.hashes[0] ?? ""), canLogin: user.enabled && user.hashes.length > 0 };
    });
  }

  async list(after: string, limit: number): Promise<readonly ListedLogin[]> {
    return this.#sessions.use(async (redis) => {
      const names = (await this.#names(redis))
        .filter((name) => name > after)
        .toSorted()
        .slice(0, limit);
      const users = await Promise.all(names.map(async (name) => ({ name, user: await getUser(redis, name) })));
      return users.flatMap(({ name, user }) => (user === undefined ? [] : [{ name, oid: oidOf(user.hashes[0] ?? "") }]));
    });
  }

  async present(names: readonly string[]): Promise<ReadonlyMap<string, SeenLogin>> {
    const there = new Set(await this.#sessions.use((redis) => this.#names(redis)));
    return new Map(names.filter((name) => there.has(name)).map((name) => [name, { canLogin: undefined, validForMs: undefined }]));
  }

  preflight(role: RedisRoleConfig | undefined): Promise<readonly PreflightCheck[]> {
    return preflight(this, this.#sessions, this.#options, role);
  }

  close(): Promise<void> {
    return this.#sessions.close();
  }

  /** Of this instance's logins. */
  async #names(redis: Redis): Promise<string[]> {
    const prefix = `lh_${this.#options.instance}_`;
    return ((await redis.call("ACL", "USERS")) as string[]).filter((name) => name.startsWith(prefix));
  }

  /** The login's own user, not one made later under its name. */
  async #userOf(redis: Redis, { name, oid }: LoginRef): Promise<object | undefined> {
    const user = await getUser(redis, name);
    return oid === undefined || user?.hashes.some((hash) => oidOf(hash) === oid) ? user : undefined;
  }
}

/**
 * In a transaction, for SETUSER would make the user that another revocation has deleted in between; again when somebody else revokes or looks for this name at the same moment. Commands are done one at a time, so
 * after `off` no AUTH succeeds; what is logged in is ended by name, and once more by DELUSER itself.
 */
async function endUser(redis: Redis, fence: string, name: string): Promise<void> {
  for (let tries = 0; tries < END_TRIES; tries++) {
    // oxlint-disable-next-line no-await-in-loop -- one try after the other
    await redis.watch(fence);
    // oxlint-disable-next-line no-await-in-loop
    if ((await getUser(redis, name)) === undefined) return void (await redis.unwatch());
    // oxlint-disable-next-line no-await-in-loop
    const done = await redis
      .multi()
      .set(fence, "ended", "EX", FENCE_SECONDS)
      .call("ACL", "SETUSER", name, "off", "resetpass", "-@all")
      .call("CLIENT", "KILL", "USER", name)
      .call("ACL", "DELUSER", name)
      .exec();
    if (throwFirst(done)) return;
  }
  throw misconfigured("sessions_remain");
}
