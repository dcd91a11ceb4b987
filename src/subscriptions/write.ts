import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { LeaseholdError } from "../base/errors.ts";
import { keyIdOf } from "../crypto/envelope.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { Actor } from "../model/audit.ts";
import type { OnLoss, SinkConfig, SubscriptionDocument, SubscriptionRecord } from "../model/subscription.ts";
import type { Command, CommandKind, Committer, Outcome } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { refusal } from "../store/group-committer.ts";
import { findSubscription, sealedSinkSecrets } from "../store/subscriptions.ts";
import type { DestinationRules } from "./destination.ts";
import { sinkOf } from "./registry.ts";
import { headerNames, openSecrets, sealSecrets, type SecretsInput } from "./sink-secrets.ts";

export interface SubscriptionInput {
  readonly name: string;
  /** Undefined: it stays, or is whoever writes. */
  readonly owner: string;
  readonly onLoss: OnLoss;
  readonly document: SubscriptionDocument;
  readonly secrets: SecretsInput;
  /** Where a new one begins, if not at its document's start. */
  readonly begin: { readonly epoch: number; readonly revision: number } | undefined;
}

export interface Write {
  readonly actor: Actor;
  readonly request: Command["request"];
}

export interface Written {
  readonly revision: number;
  /** False for a dry run or a replay. */
  readonly recorded: boolean;
  readonly result: Readonly<Record<string, unknown>>;
}

export interface WriterDeps {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly committer: Committer;
  readonly rules: DestinationRules;
}

const MAX_TRIES = 5;

/** Writes subscriptions: the sink checks them, their secrets are sealed, the committer stores them. */
export class SubscriptionWriter {
  readonly #deps: WriterDeps;

  constructor(deps: WriterDeps) {
    this.#deps = deps;
  }

  /** Throws REQUEST_INVALID (every violation at once), VERSION_MISMATCH, CONFLICT, SEALED. */
  async put(input: SubscriptionInput, write: Write, etag: string, dryRun: boolean): Promise<Written> {
    this.#check(input);
    for (let i = 0; i < MAX_TRIES; i++) {
      const known = await findSubscription(this.#deps.db, input.name);
      const args = await this.#argsOf(input, known, etag);
      if (dryRun) return { revision: 0, recorded: false, result: {} };
      const outcome = await this.#commit("subscription.put", input.name, args, write);
      if (outcome.ok || outcome.reason !== "STALE") return finish(outcome);
    }
    throw new LeaseholdError("STORE_UNAVAILABLE", "the subscription kept changing", { retryAfterMs: 100 });
  }

  /** Throws SUBSCRIPTION_NOT_FOUND, VERSION_MISMATCH, CONFLICT. */
  async delete(name: string, etag: string, write: Write): Promise<Written> {
    return finish(await this.#commit("subscription.delete", name, { etag }, write));
  }

  async pause(name: string, write: Write): Promise<Written> {
    return finish(await this.#commit("subscription.pause", name, {}, write));
  }

  /** Throws SUBSCRIPTION_LOST where it can't go on at its cursor (`from` empty). */
  async resume(name: string, from: "" | "OLDEST" | "NOW" | "SNAPSHOT", write: Write): Promise<Written> {
    return finish(await this.#commit("subscription.resume", name, { from }, write));
  }

  /** @param ids undefined: all. Answers in `result.count` how many. */
  async replay(name: string, ids: readonly string[] | undefined, write: Write): Promise<Written> {
    return finish(await this.#commit("dead_letter.replay", name, { ids: ids ?? null }, write));
  }

  async discard(name: string, ids: readonly string[] | undefined, write: Write): Promise<Written> {
    return finish(await this.#commit("dead_letter.discard", name, { ids: ids ?? null }, write));
  }

  #check({ document: { sink } }: SubscriptionInput): void {
    const violations = sinkOf(sink)?.check(sink, this.#deps.rules) ?? [];
    if (violations.length === 0) return;
    throw new LeaseholdError("REQUEST_INVALID", "sink", {
      violations: violations.map(({ field, description }) => ({ field: `subscription.${sink.kind}.${field}`, description })),
    });
  }

  async #argsOf(input: SubscriptionInput, known: SubscriptionRecord | undefined, etag: string): Promise<Command["args"]> {
    const { db, keyring } = this.#deps;
    const { sink } = input.document;
    const uid = known?.uid ?? randomUUID();
    const before = await openSecrets(keyring, uid, known === undefined ? undefined : await sealedSinkSecrets(db, uid));
    const { secrets, signingKey } = before.changed(sink, input.secrets, known !== undefined && hasMoved(known.document.sink, sink), Date.now());
    const document = { ...input.document, sink: sink.kind === "webhook" ? { ...sink, secretHeaders: headerNames(secrets) } : sink };
    const sealed = secrets === undefined ? undefined : sealSecrets(keyring, uid, secrets);
    before.wipe();
    return {
      uid,
      generation: known?.generation ?? 0,
      name: input.name,
      owner: input.owner,
      document: JSON.stringify(document),
      sink: sink.kind,
      on_loss: input.onLoss,
      signing_key: signingKey,
      etag,
      snapshot: input.begin === undefined && input.document.start === "SNAPSHOT",
      ...input.begin,
      ...(sealed === undefined ? { unseal: true } : { sealed: Buffer.from(sealed).toString("base64"), key_id: keyIdOf(sealed) }),
    };
  }

  #commit(kind: CommandKind, name: string, args: Command["args"], { actor, request }: Write): Promise<Outcome> {
    return this.#deps.committer.commit({ kind, path: `subscriptions/${name}`, actor, request, args: { name, ...args } });
  }
}

function hasMoved(before: SinkConfig, after: SinkConfig): boolean {
  if (before.kind !== after.kind) return true;
  const sink = sinkOf(after);
  // Through JSON, as it was stored: a field that is undefined is none.
  const place = (config: SinkConfig): unknown => JSON.parse(JSON.stringify(sink?.destination(config) ?? null));
  return !isDeepStrictEqual(place(before), place(after));
}

function finish(outcome: Outcome): Written {
  if (!outcome.ok) throw refusal(outcome);
  return { revision: outcome.revision, recorded: outcome.replay !== true, result: outcome.result };
}
