import type { Redis } from "ioredis";
import { LeaseholdError } from "../../base/errors.ts";
import type { Sensitive } from "../../base/sensitive.ts";
import type { OpenOptions, PreflightCheck } from "../engine.ts";
import { deadlinePassed, misconfigured } from "../own-login.ts";
import type { PasswordChange, StaticLogin, StaticLogins } from "../static-login.ts";
import type { RedisTargetConfig } from "./config.ts";
import { requireServer, save, throwFirst, timeOf } from "./server.ts";
import type { Sessions } from "./sessions.ts";
import { aclHash, type AclUser, getUser, rotationKey } from "./users.ts";

/** No deadline is further away. */
const FENCE_SECONDS = 120;

function otherRotation(): LeaseholdError {
  return new LeaseholdError("TARGET_UNAVAILABLE", "target: other_rotation", { metadata: { problem: "other_rotation" } });
}

/**
 * Passwords of ACL users that applications have. A user may have several at once, so the old one and the candidate both work while everybody learns the new one.
 *
 * The fence is a key with the newest generation, watched while the clock and the user are looked at and written in the transaction that changes the user: whoever was overtaken finds it changed. It is
 * gone after two minutes, later than the deadline of all that it keeps out.
 */
export class RedisStaticLogins implements StaticLogins {
  readonly #sessions: Sessions;
  readonly #config: RedisTargetConfig;
  readonly #options: OpenOptions;

  constructor(sessions: Sessions, config: RedisTargetConfig, options: OpenOptions) {
    this.#sessions = sessions;
    this.#config = config;
    this.#options = options;
  }

  async setPassword({ login: { name }, password, keep, drop = [], rotation, generation, deadlineAt }: PasswordChange): Promise<void> {
    this.#requireAllowed(name);
    const { instance } = this.#options;
    const hash = aclHash(password);
    const [kept, dropped] = [keep?.map(aclHash), drop.map(aclHash)];
    await this.#sessions.use(async (redis) => {
      await requireServer(redis, instance, undefined);
      const fence = rotationKey(instance, name);
      await redis.watch(fence);
      const last = (await redis.get(fence))?.split(" ");
      if (last !== undefined && last[0] !== rotation) throw otherRotation();
      if (last !== undefined && Number(last[1]) > generation) throw misconfigured("generation_passed");
      const user = await this.#user(redis, name);
      const now = await timeOf(redis);
      if (now > deadlineAt) throw deadlinePassed();
      if (deadlineAt > now + FENCE_SECONDS * 1000) throw misconfigured("malformed");
      const others = user.hashes.filter((one) => one !== hash && (dropped.includes(one) || kept?.includes(one) === false));
      const done = await redis
        .multi()
        .set(fence, `${rotation} ${generation}`, "EX", FENCE_SECONDS)
        .call("ACL", "SETUSER", name, `#${hash}`, ...others.map((one) => `!${one}`))
        .exec();
      if (!throwFirst(done)) throw misconfigured("generation_passed"); // by another worker, just now
      await save(redis);
    });
  }

  async tryLogin(login: string, password: Sensitive): Promise<void> {
    const redis = await this.#sessions.connectAs(login, password);
    redis.disconnect();
  }

  check(logins: readonly StaticLogin[]): Promise<readonly PreflightCheck[]> {
    return this.#sessions.use((redis) =>
      Promise.all(
        logins.map(async ({ name }) => {
          const title = `static_login ${name}`;
          if (!this.#isAllowed(name))
            return { name: title, ok: false, detail: `user ${name} is not among the target's allow_logins, or is the broker's own or default` };
          const there = (await getUser(redis, name)) !== undefined;
          return { name: title, ok: there, detail: there ? "its password may be set" : `user ${name} does not exist` };
        }),
      ),
    );
  }

  /** The user as it is: SETUSER would make one that is not there. */
  async #user(redis: Redis, name: string): Promise<AclUser> {
    const user = await getUser(redis, name);
    if (user === undefined) throw misconfigured("login_missing");
    return user;
  }

  #requireAllowed(name: string): void {
    if (!this.#isAllowed(name)) throw misconfigured(this.#isOurs(name) ? "role_protected" : "login_not_allowed");
  }

  #isAllowed(name: string): boolean {
    return !this.#isOurs(name) && (this.#config.allowLogins ?? []).includes(name);
  }

  #isOurs(name: string): boolean {
    return name === "default" || name === this.#config.username || name.startsWith("lh_") || name.startsWith("leasehold_");
  }
}
