/**
 * Which tokens of ACL SETUSER a role may have. They are sent as arguments of their own, so nothing can be quoted out of; what is refused is
 * what would make a lease more than it is: another password, none at all, commands that change users, settings, code or data of the whole server.
 */
const KEYS = /^(~|%R~|%W~|%RW~)[\x21-\x7e]{1,256}$/;
const CHANNELS = /^&[\x21-\x7e]{1,256}$/;
const ADD_CATEGORY = /^\+@([a-z]{1,32})$/;
const ADD_COMMAND = /^\+([a-z][a-z0-9_.-]{0,63})(?:\|([a-z][a-z0-9_-]{0,63}))?$/;
const REMOVE = /^-(@[a-z]{1,32}|[a-z][a-z0-9_.-]{0,63}(\|[a-z][a-z0-9_-]{0,63})?)$/;

/** Categories without a command of @admin; KEYS and SORT are the worst of them. */
const PLAIN: ReadonlySet<string> = new Set("read set sortedset list hash string bitmap geo stream pubsub transaction scripting".split(" "));
/** Categories that hold commands of @admin or that harm the whole server: to be cut down by what follows. */
const BROAD: ReadonlySet<string> = new Set("all write keyspace connection blocking fast slow hyperloglog".split(" "));

/** Every command of @admin (tests ask the server), and of @dangerous what reaches beyond the user's keys. Subcommands go with their command. */
const REFUSED: ReadonlySet<string> = new Set(
  (
    "acl asking auth bgrewriteaof bgsave cluster config debug failover flushall flushdb hello lastsave latency migrate module monitor pfdebug pfselftest psync replconf replicaof " +
    "restore restore-asking role save shutdown slaveof slowlog swapdb sync"
  ).split(" "),
);
/** CLIENT and its harmless subcommands, which drivers send when they connect. */
const CLIENT: ReadonlySet<string> = new Set(["getname", "id", "setinfo", "setname"]);

/** What is wrong with a rule; undefined when it may be. */
export function ruleProblem(rule: string): string | undefined {
  if (KEYS.test(rule)) return /~leasehold:/.test(rule) ? "must not reach the broker's own keys" : undefined;
  if (CHANNELS.test(rule) || REMOVE.test(rule)) return undefined;
  const category = ADD_CATEGORY.exec(rule)?.[1];
  if (category !== undefined) return PLAIN.has(category) || BROAD.has(category) ? undefined : "is a category that a lease can't have";
  const [, command, sub] = ADD_COMMAND.exec(rule) ?? [];
  if (command === undefined) return "must be ~keys, %R~keys, %W~keys, &channels, +command, -command, +@category or -@category, without whitespace";
  if (command === "client") return sub !== undefined && CLIENT.has(sub) ? undefined : "is a command that a lease can't have";
  return REFUSED.has(command) ? "is a command that a lease can't have" : undefined;
}

/** Index of a broad category that is not followed by both -@admin and -@dangerous. */
export function unguarded(rules: readonly string[]): number | undefined {
  const index = rules.findLastIndex((rule) => BROAD.has(ADD_CATEGORY.exec(rule)?.[1] ?? ""));
  const after = rules.slice(index + 1);
  return index < 0 || (after.includes("-@admin") && after.includes("-@dangerous")) ? undefined : index;
}
