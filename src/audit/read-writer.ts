import { createHash } from "node:crypto";
import pg from "pg";
import { sleep, systemClock } from "../base/clock.ts";
import { LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { backoffMs } from "../base/retry.ts";
import type { AuditEntry } from "../model/audit.ts";
import { clientConfig, type StoreConfig } from "../store/db.ts";
import { storeFailure } from "../store/sqlstate.ts";
import type { ChainTail } from "../store/group-committer.ts";
import type { AuditWriter } from "./audit.ts";
import type { Fingerprints } from "./fingerprint.ts";
import { recordText } from "./record.ts";

const APPEND = { name: "append_audit", text: "select append_audit($1, $2, $3, decode($4, 'hex'), $5::json) as fresh" };
const WRITTEN = {
  name: "append_audit_written",
  text: "select coalesce((select revision from change_log where decides_reads order by revision desc limit 1), 0) as fresh from audit_batch where chain = $1 and batch = $2",
};
const PARTITIONS = { name: "append_audit_partitions", text: "select ensure_audit_partitions(2)" };

const MAX_BATCH = 500;
const MAX_QUEUED = 50_000;

type Done = (error: Error | undefined, freshRevision: number) => void;

export interface ReadWriterOptions {
  /** How long a record may take to become durable before its call is answered AUDIT_UNAVAILABLE, in milliseconds. */
  readonly timeoutMs: number;
  /** How long a batch gathers, in milliseconds; 0: one turn of the event loop. */
  readonly lingerMs: number;
}

interface Pending {
  readonly text: string;
  readonly at: number;
  done: Done | undefined;
}

interface Batch {
  readonly number: number;
  readonly lastSeq: number;
  readonly head: string;
  readonly payload: string;
  readonly entries: readonly Pending[];
}

/**
 * The chain of reads and denials: records gather while a batch is under way and go out as the next one, hashed as the text that is stored. A batch that
 * failed is sent again as it was, under the same numbers, until the store has it (after a lost answer it is looked up first): a chain has no holes. Calls do not wait
 * that long: after `timeoutMs` they are answered AUDIT_UNAVAILABLE and disclose nothing, though their record may still be written.
 */
export class ReadAudit implements AuditWriter {
  readonly #config: StoreConfig;
  readonly #tail: ChainTail;
  readonly #fingerprints: Fingerprints;
  readonly #options: ReadWriterOptions;
  readonly #log: Log;
  readonly #written: (tail: Readonly<ChainTail>) => void;
  #client: pg.Client | undefined;
  #connecting: Promise<pg.Client> | undefined;
  #seq: number;
  #rows: Pending[] = [];
  #running: Promise<void> | undefined;
  #failing = false;
  #closed = false;

  constructor(
    config: StoreConfig,
    tail: ChainTail,
    fingerprints: Fingerprints,
    options: ReadWriterOptions,
    log: Log,
    written: (tail: Readonly<ChainTail>) => void,
  ) {
    this.#config = config;
    this.#tail = tail;
    this.#seq = tail.seq;
    this.#fingerprints = fingerprints;
    this.#options = options;
    this.#log = log;
    this.#written = written;
  }

  /** False while the store does not take records: health says so. */
  get healthy(): boolean {
    return !this.#failing;
  }

  append(entry: AuditEntry, done: Done): void {
    if (this.#closed || this.#rows.length >= MAX_QUEUED) return done(unavailable(), 0);
    const peer = entry.peer === "" ? undefined : this.#fingerprints.of(entry.peer);
    const lease = entry.lease === undefined ? undefined : this.#fingerprints.of(entry.lease);
    this.#rows.push({ text: recordText(++this.#seq, entry, peer, lease), at: performance.now(), done });
    this.#running ??= this.#run();
  }

  /** Before the first record comes: a burst of first calls would wait for the connection, each within its record's time. What fails here is tried again by the first record. */
  async connect(): Promise<void> {
    await this.#connected().catch(() => {});
  }

  /** Writes what is queued, if the store takes it, then closes the connection. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#running;
    await this.#client?.end().catch(() => {});
    this.#client = undefined;
  }

  async #run(): Promise<void> {
    while (this.#rows.length > 0) {
      await this.#gather();
      const sent = await this.#send(this.#take());
      if (!sent) break; // closing while the store is away
    }
    this.#running = undefined;
  }

  #gather(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#options.lingerMs > 0) setTimeout(resolve, this.#options.lingerMs);
      else setImmediate(resolve);
    });
  }

  #take(): Batch {
    const entries = this.#rows.length <= MAX_BATCH ? this.#rows : this.#rows.slice(0, MAX_BATCH);
    this.#rows = this.#rows.length <= MAX_BATCH ? [] : this.#rows.slice(MAX_BATCH);
    const payload = `[${entries.map((entry) => entry.text).join(",")}]`;
    const head = createHash("sha256").update(Buffer.from(this.#tail.head, "hex")).update(payload).digest("hex");
    return { number: this.#tail.batch + 1, lastSeq: this.#tail.seq + entries.length, head, payload, entries };
  }

  async #send(batch: Batch): Promise<boolean> {
    let answered = false;
    // After the next poll, not now: a process that was busy finds this timer due before it has read the store's answer, and would refuse records that are durable.
    const look = (): void => void setImmediate(() => answered || this.#expire(batch));
    const watchdog = setInterval(look, Math.max(50, this.#options.timeoutMs / 4));
    try {
      for (let attempt = 0; ; attempt++) {
        try {
          const fresh = await this.#try(batch, attempt > 0);
          answered = true;
          this.#tail.batch = batch.number;
          this.#tail.seq = batch.lastSeq;
          this.#tail.head = batch.head;
          this.#failing = false;
          this.#written(this.#tail);
          for (const entry of batch.entries) entry.done?.(undefined, fresh);
          return true;
        } catch (error) {
          const failure = storeFailure(error);
          if (!this.#failing) this.#log.error({ failure, error: (error as Error).message }, "audit records can't be written: reads are refused until they can");
          this.#failing = true;
          if (failure === "no_partition") await this.#client?.query(PARTITIONS).catch(() => {});
          else this.#drop();
          this.#expire(batch);
          if (this.#closed) return false;
          await sleep(systemClock, backoffMs(attempt, 20, 500));
        }
      }
    } finally {
      clearInterval(watchdog);
    }
  }

  async #try(batch: Batch, again: boolean): Promise<number> {
    const client = this.#client ?? (await this.#connected());
    if (again) {
      const known = await client.query<{ fresh: number }>({ ...WRITTEN, values: [this.#tail.chain, batch.number] });
      if (known.rows[0] !== undefined) return known.rows[0].fresh;
    }
    const result = await client.query<{ fresh: number }>({ ...APPEND, values: [this.#tail.chain, batch.number, batch.lastSeq, batch.head, batch.payload] });
    return result.rows[0]!.fresh;
  }

  /** Answers the calls that have waited too long, of the batch under way and of the queue. */
  #expire(batch: Batch): void {
    const before = performance.now() - this.#options.timeoutMs;
    for (const entries of [batch.entries, this.#rows]) {
      for (const entry of entries) {
        if (entry.at > before && !this.#closed) break;
        const { done } = entry;
        entry.done = undefined;
        done?.(unavailable(), 0);
      }
    }
  }

  #connected(): Promise<pg.Client> {
    return (this.#connecting ??= this.#connect().finally(() => (this.#connecting = undefined)));
  }

  async #connect(): Promise<pg.Client> {
    const client = new pg.Client(clientConfig(this.#config));
    client.on("error", () => {
      if (this.#client === client) this.#client = undefined;
    });
    await client.connect();
    return (this.#client = client);
  }

  #drop(): void {
    const client = this.#client;
    this.#client = undefined;
    void client?.end().catch(() => {});
  }
}

function unavailable(): LeaseholdError {
  return new LeaseholdError("AUDIT_UNAVAILABLE", "the audit record could not be made durable in time", { retryAfterMs: 1000 });
}
