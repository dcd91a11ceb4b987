import { hash } from "node:crypto";
import type { Log } from "../base/log.ts";
import type { Kms } from "../kms/kms.ts";
import { abandonedHeads, type ChainHead, type ChainKind, closeChain, insertChain, insertSignedHead, liveHeads, touchChains } from "../store/audit.ts";
import type { Db } from "../store/db.ts";
import type { ChainTail } from "../store/group-committer.ts";
import { createProcessKey, SIGNATURE_ALGORITHM, type ProcessKey } from "./process-key.ts";

const SIGN_EVERY_MS = 1000;
const SIGN_EVERY_RECORDS = 1000;
const ABANDONED_SECONDS = 60;
const EXPORT_EVERY_MS = 60_000;

/**
 * The life of this process's two chains. Each begins with a statement signed by the KMS (process, epoch, public key, the heads of every live chain), its
 * head is signed every second or 1,000 records together with the heads of the other live chains, and it ends with a signed statement: its own, or that of the
 * process that finds it abandoned. What a crash can take unseen are the records after the last signed head; verify says how many those are.
 */
export class AuditChains {
  readonly #db: Db;
  readonly #kms: Kms;
  readonly #log: Log;
  readonly #key: ProcessKey = createProcessKey();
  readonly #tails: ChainTail[] = [];
  readonly #signed = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #signing: Promise<void> | undefined;
  #exportedAt = 0;

  constructor(db: Db, kms: Kms, log: Log) {
    this.#db = db;
    this.#kms = kms;
    this.#log = log;
  }

  /** Opens a chain of this process; its first head is the hash of the opening. */
  async open(kind: ChainKind, processId: string, epoch: number): Promise<ChainTail> {
    const chain = `${processId}/${kind}`;
    const others = await liveHeads(this.#db);
    const opening = JSON.stringify({
      chain,
      kind,
      process_id: processId,
      epoch,
      algorithm: SIGNATURE_ALGORITHM,
      public_key: this.#key.publicKey,
      kms_key_id: this.#kms.keyId,
      opened_at: new Date().toISOString(),
      heads: others.map(short),
    });
    await insertChain(this.#db, { chain, kind, processId, opening, openingSignature: await this.#kms.sign(Buffer.from(opening)) });
    const tail: ChainTail = { chain, batch: 0, seq: 0, head: hash("sha256", opening) };
    this.#tails.push(tail);
    return tail;
  }

  start(): void {
    this.#timer = setInterval(() => this.#tick(), SIGN_EVERY_MS);
    this.#timer.unref();
    void this.#closeAbandoned();
  }

  /** After every batch: signs early when many records came since the last signature. */
  grown(tail: Readonly<ChainTail>): void {
    if (tail.seq - (this.#signed.get(tail.chain) ?? 0) >= SIGN_EVERY_RECORDS) this.#tick();
  }

  /** Signs the ends. Call it when nothing is appended any more. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#signing;
    for (const tail of this.#tails) {
      const closing = JSON.stringify({ ...short(headOf(tail)), closed_by: tail.chain, algorithm: SIGNATURE_ALGORITHM, closed_at: new Date().toISOString() });
      await closeChain(this.#db, tail.chain, closing, this.#key.sign(closing));
    }
  }

  #tick(): void {
    this.#signing ??= this.#sign()
      .catch((error: Error) => this.#log.warn({ error: error.message }, "audit heads could not be signed"))
      .finally(() => {
        this.#signing = undefined;
      });
  }

  async #sign(): Promise<void> {
    await touchChains(
      this.#db,
      this.#tails.map((tail) => tail.chain),
    );
    if (this.#tails.every((tail) => tail.seq <= (this.#signed.get(tail.chain) ?? 0))) return;
    // Every own chain signs when one has grown, so that the quiet ones bear witness to it.
    const heads = this.#tails.map(headOf);
    const others = await liveHeads(this.#db);
    for (const head of heads) {
      const text = JSON.stringify({
        ...short(head),
        batch: head.batch,
        algorithm: SIGNATURE_ALGORITHM,
        signed_at: new Date().toISOString(),
        others: others.filter((other) => other.chain !== head.chain).map(short),
      });
      await insertSignedHead(this.#db, head, text, this.#key.sign(text));
      this.#signed.set(head.chain, head.lastSeq);
    }
    this.#export(heads);
  }

  /** Heads outside of the database: a line in the log each minute, which a collector keeps. */
  #export(heads: readonly ChainHead[]): void {
    const now = performance.now();
    if (this.#exportedAt !== 0 && now - this.#exportedAt < EXPORT_EVERY_MS) return;
    this.#exportedAt = now;
    this.#log.info({ heads: heads.map(short) }, "audit heads");
  }

  async #closeAbandoned(): Promise<void> {
    try {
      const abandoned = await abandonedHeads(this.#db, ABANDONED_SECONDS);
      for (const head of abandoned) {
        const closing = JSON.stringify({
          ...short(head),
          closed_by: this.#tails[0]?.chain ?? "",
          algorithm: SIGNATURE_ALGORITHM,
          kms_key_id: this.#kms.keyId,
          closed_at: new Date().toISOString(),
        });
        await closeChain(this.#db, head.chain, closing, await this.#kms.sign(Buffer.from(closing)));
      }
    } catch (error) {
      this.#log.warn({ error: (error as Error).message }, "abandoned audit chains could not be closed");
    }
  }
}

function headOf(tail: ChainTail): ChainHead {
  return { chain: tail.chain, batch: tail.batch, lastSeq: tail.seq, head: tail.head };
}

function short(head: ChainHead): { chain: string; last_seq: number; head: string } {
  return { chain: head.chain, last_seq: head.lastSeq, head: head.head };
}
