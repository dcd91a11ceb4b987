import pg from "pg";
import { LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { backoffMs } from "../base/retry.ts";
import { systemClock, sleep } from "../base/clock.ts";
import type { Command, Committer, Outcome } from "./command.ts";
import { clientConfig, type StoreConfig } from "./db.ts";
import { storeError, storeFailure } from "./sqlstate.ts";

/** A batch of this many lease moves takes about 20 ms: what an urgent change waits for at most. */
const MAX_BATCH = 400;
const MAX_BATCH_BYTES = 4 * 1024 * 1024;
const MAX_QUEUED = 20_000;
/** How long what nobody waits for may lie: it goes with others of its kind then, and not in front of those who wait. */
const SOON_MS = 20;

const COMMIT = { name: "commit_changes", text: "select commit_changes($1, $2, $3, $4, decode($5, 'hex'), $6::jsonb) as answer" };
const OUTCOME = { name: "commit_outcome", text: "select outcome as answer from commit_result where chain = $1 and batch = $2" };
const TAIL = {
  name: "commit_tail",
  text: "select batch, last_seq, encode(head, 'hex') as head from audit_batch where chain = $1 order by batch desc limit 1",
};
const PARTITIONS = { name: "commit_partitions", text: "select ensure_audit_partitions(2)" };

/** The process's own idea of the tail of its chain of changes; the database checks it. */
export interface ChainTail {
  readonly chain: string;
  batch: number;
  seq: number;
  /** Hexadecimal SHA-256. */
  head: string;
}

export interface CommitterHooks {
  /** Keyed hash of a lease id or a peer for the record. */
  fingerprint(value: string): string;
  /** After every batch that changed something: the feed looks, the audit signs the head in time. @param leasesOnly nothing but leases was changed, which nobody keeps in memory. */
  committed(
    tail: Readonly<ChainTail>,
    answer: { readonly epoch: number; readonly timeline: number; readonly revision: number; readonly changed: boolean },
    leasesOnly: boolean,
  ): void;
}

interface Answer {
  readonly epoch: number;
  readonly timeline: number;
  readonly revision: number;
  readonly changed: boolean;
  readonly head: string;
  readonly last_seq: number;
  readonly results: readonly Outcome[];
}

interface Waiting {
  readonly text: string;
  readonly ofLease: boolean;
  /** Nobody waits for it. */
  soon: boolean;
  /** What it is about: two of the same don't go into one batch. */
  readonly keys: readonly string[];
  readonly expiresAt: number;
  readonly resolve: (outcome: Outcome) => void;
  readonly reject: (error: Error) => void;
}

/**
 * The one writer of this process: collects commands while a batch is under way and sends them as the next one, on its own connection.
 * A batch whose answer was lost is looked up in `commit_result` before anything else is sent, so no command is done twice or forgotten.
 * A batch that fails for a reason of its own is split, so that one bad command can't sink the others (finding 22).
 */
export class GroupCommitter implements Committer {
  readonly #config: StoreConfig;
  readonly #tail: ChainTail;
  readonly #hooks: CommitterHooks;
  readonly #log: Log;
  readonly #timeoutMs: number;
  #client: pg.Client | undefined;
  #commits = 0;
  #queue: Waiting[] = [];
  #running: Promise<void> | undefined;
  #soon: NodeJS.Timeout | undefined;
  #closed = false;

  /** @param timeoutMs how long a command may wait in all before it is answered STORE_UNAVAILABLE; one that was already sent is never answered so while its outcome can still be read. */
  constructor(config: StoreConfig, tail: ChainTail, hooks: CommitterHooks, log: Log, timeoutMs = 10_000) {
    this.#config = config;
    this.#tail = tail;
    this.#hooks = hooks;
    this.#log = log;
    this.#timeoutMs = timeoutMs;
  }

  commit(command: Command, when: "now" | "soon" = "now"): Promise<Outcome> {
    if (this.#closed) return Promise.reject(new LeaseholdError("DRAINING"));
    if (this.#queue.length >= MAX_QUEUED) return Promise.reject(new LeaseholdError("OVERLOADED", "the committer's queue is full", { retryAfterMs: 1000 }));
    const text = this.#serialize(command);
    return new Promise((resolve, reject) => {
      const ofLease = command.kind.startsWith("lease.");
      this.#queue.push({ text, ofLease, soon: when === "soon", keys: keysOf(command), expiresAt: Date.now() + this.#timeoutMs, resolve, reject });
      if (when === "now") this.#running ??= this.#run();
      else this.#soon ??= setTimeout(() => this.#flush(), SOON_MS);
    });
  }

  /** Waits for what is queued, then closes the connection. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#flush();
    await this.#running;
    await this.#client?.end().catch(() => {});
    this.#client = undefined;
  }

  #serialize(command: Command): string {
    const { kind, path, actor, request, args, lease } = command;
    return JSON.stringify({
      kind,
      // Who takes it from the pool learns its id by the same commit that writes the record.
      fingerprint: kind === "lease.stock" && lease !== undefined ? this.#hooks.fingerprint(lease) : undefined,
      path,
      actor: { principal: actor.principal, action: actor.action, traceId: actor.traceId },
      request,
      args,
      audit: this.#auditText(command),
    });
  }

  /** The audit record but for its sequence, version and revision, which the database puts in front. Fields as in src/audit/record.ts. */
  #auditText({ path, actor, lease, record }: Command): string | undefined {
    if (record === false) return undefined;
    return JSON.stringify({
      at: Date.now(),
      request_id: actor.requestId,
      trace_id: actor.traceId,
      principal: actor.principal,
      action: actor.action,
      capability: actor.capability,
      path,
      outcome: "ok",
      lease: lease === undefined ? undefined : this.#hooks.fingerprint(lease),
      peer: actor.peer === "" ? undefined : this.#hooks.fingerprint(actor.peer),
      cause: actor.cause,
    });
  }

  /** What could wait has waited long enough. */
  #flush(): void {
    clearTimeout(this.#soon);
    this.#soon = undefined;
    for (const waiting of this.#queue) waiting.soon = false;
    if (this.#queue.length > 0) this.#running ??= this.#run();
  }

  async #run(): Promise<void> {
    await Promise.resolve(); // let the commands of this turn gather
    while (this.#queue.some((waiting) => !waiting.soon)) {
      const batch = this.#take();
      if (batch.length > 0) await this.#send(batch);
    }
    this.#running = undefined;
  }

  /** The next batch: what is wanted now, in order, and before it what it must come after. What can wait holds up nobody: it goes together, later. */
  #take(): Waiting[] {
    const now = Date.now();
    const batch: Waiting[] = [];
    const later: Waiting[] = [];
    const taken = new Set<string>();
    const wanted = new Set(this.#soon === undefined ? [] : this.#queue.flatMap((waiting) => (waiting.soon ? [] : waiting.keys)));
    let bytes = 0;
    let used = 0;
    for (const waiting of this.#queue) {
      if (batch.length >= MAX_BATCH || (batch.length > 0 && bytes + waiting.text.length > MAX_BATCH_BYTES)) break;
      used++;
      if (waiting.expiresAt <= now) {
        waiting.reject(new LeaseholdError("STORE_UNAVAILABLE", "the store did not take the change in time", { retryAfterMs: 1000 }));
        continue;
      }
      const twin = waiting.keys.some((key) => taken.has(key));
      for (const key of waiting.keys) taken.add(key);
      if (twin || (waiting.soon && !waiting.keys.some((key) => wanted.has(key)))) {
        later.push(waiting);
        continue;
      }
      bytes += waiting.text.length;
      batch.push(waiting);
    }
    this.#queue = [...later, ...this.#queue.slice(used)];
    return batch;
  }

  /** Settles every command of the batch; never throws. */
  async #send(batch: readonly Waiting[]): Promise<void> {
    const giveUpAt = Math.max(...batch.map((waiting) => waiting.expiresAt));
    for (let attempt = 0; ; attempt++) {
      try {
        const answer = await this.#try(batch, attempt > 0);
        this.#settle(batch, answer);
        return;
      } catch (error) {
        const failure = storeFailure(error);
        this.#log.warn({ failure, attempt, error: (error as Error).message }, "a commit failed");
        if (failure === "connection" || failure === "duplicate") this.#drop();
        if (failure === "no_partition") await this.#client?.query(PARTITIONS).catch(() => {});
        if (failure === "other") {
          await this.#split(batch, error);
          return;
        }
        if (Date.now() >= giveUpAt || (this.#closed && failure === "connection")) {
          const reported =
            failure === "exhausted" ? new LeaseholdError("AUDIT_UNAVAILABLE", "the store is full", { cause: error, retryAfterMs: 5000 }) : storeError(error);
          for (const waiting of batch) waiting.reject(reported);
          this.#commits++; // should it come to pass after all, its answer is nobody else's
          return;
        }
        await sleep(systemClock, backoffMs(attempt, 20, 500));
      }
    }
  }

  async #try(batch: readonly Waiting[], again: boolean): Promise<Answer> {
    const client = (this.#client ??= await this.#connect());
    const next = this.#commits + 1;
    if (again) {
      const known = await client.query<{ answer: Answer }>({ ...OUTCOME, values: [this.#tail.chain, next] });
      if (known.rows[0] !== undefined) return known.rows[0].answer;
      await this.#readTail(client);
    }
    const { chain, batch: last, seq, head } = this.#tail;
    const commands = `[${batch.map((waiting) => waiting.text).join(",")}]`;
    const result = await client.query<{ answer: Answer }>({ ...COMMIT, values: [chain, next, last + 1, seq, head, commands] });
    return result.rows[0]!.answer;
  }

  /** A batch that was given up may have been committed after all. */
  async #readTail(client: pg.Client): Promise<void> {
    const { rows } = await client.query<{ batch: number; last_seq: number; head: string }>({ ...TAIL, values: [this.#tail.chain] });
    if (rows[0] === undefined || rows[0].batch <= this.#tail.batch) return;
    this.#tail.batch = rows[0].batch;
    this.#tail.seq = rows[0].last_seq;
    this.#tail.head = rows[0].head;
  }

  #settle(batch: readonly Waiting[], answer: Answer): void {
    this.#commits++;
    if (answer.last_seq > this.#tail.seq) {
      this.#tail.batch++;
      this.#tail.seq = answer.last_seq;
      this.#tail.head = answer.head;
    }
    const leasesOnly = batch.every((waiting) => waiting.ofLease);
    this.#hooks.committed(this.#tail, answer, leasesOnly);
    batch.forEach((waiting, i) => waiting.resolve(answer.results[i]!));
  }

  async #split(batch: readonly Waiting[], error: unknown): Promise<void> {
    if (batch.length === 1) {
      this.#log.error({ error: (error as Error).message }, "a change was refused by the database");
      batch[0]!.reject(storeError(error));
      return;
    }
    const half = batch.length >> 1;
    await this.#send(batch.slice(0, half));
    await this.#send(batch.slice(half));
  }

  async #connect(): Promise<pg.Client> {
    const config = clientConfig(this.#config);
    // Plans are made when there are few leases and kept when there are a million; and kept, rather than made anew because a batch of one seems cheaper than the next (1 ms a call). Before 18 a forbidden scan looks dear enough to be compiled, hence no JIT. For the same reason no sort where an index has the order: the next login of a pool was found by sorting all of its leases (1.0 ms a call, now 0.06).
    const client = new pg.Client({
      ...config,
      options: `${config.options} -c enable_seqscan=off -c enable_sort=off -c enable_bitmapscan=off -c plan_cache_mode=force_generic_plan -c jit=off`,
    });
    client.on("error", () => {
      if (this.#client === client) this.#client = undefined;
    });
    await client.connect();
    return client;
  }

  #drop(): void {
    const client = this.#client;
    this.#client = undefined;
    void client?.end().catch(() => {});
  }
}

/** The lease, and the idempotency key. Moves of many leases are one statement each, where two of one lease, or twins of one request, would be in each other's way. */
function keysOf(command: Command): string[] {
  const { lease, request, actor, kind, args } = command;
  const keys = lease === undefined ? [] : [lease];
  const requestId = request?.id ?? (kind === "lease.create" ? args["request_id"] : undefined);
  if (typeof requestId === "string") keys.push(`${actor.principal} ${actor.action} ${requestId}`);
  return keys;
}

/** Turns a refusal into the public error. STALE and REPLAY are for the caller to handle first. */
export function refusal(outcome: Extract<Outcome, { ok: false }>): LeaseholdError {
  if (outcome.reason === "STALE") return new LeaseholdError("STORE_UNAVAILABLE", "the row kept changing", { retryAfterMs: 100 });
  if (outcome.reason === "REPLAY") return new LeaseholdError("CONFLICT");
  return new LeaseholdError(outcome.reason, outcome.reason, { metadata: outcome.metadata });
}
