import { hkdfSync, randomBytes } from "node:crypto";
import { isReason, LeaseholdError } from "../base/errors.ts";
import type { Kms } from "../kms/kms.ts";

/** A seed as stored: wrapped by the KMS. */
export interface SeedRecord {
  readonly id: number;
  readonly provider: string;
  readonly kmsKeyId: string;
  readonly wrapped: Uint8Array;
  /** Unix milliseconds. */
  readonly createdAt: number;
}

export interface SeedRecords {
  list(): Promise<SeedRecord[]>;
  /** Inserts unless the id is there: of two starting replicas the first one's seed wins. */
  insertIfAbsent(record: Omit<SeedRecord, "createdAt">): Promise<void>;
}

const SEED_BYTES = 32;
const FIRST = 1;

/**
 * The seeds in memory. While the KMS can't or won't open them the ring is sealed: every use throws SEALED, and `unseal` may be tried again.
 * The newest seed seals; every seed opens.
 */
export class Keyring {
  readonly #records: SeedRecords;
  readonly #kms: Kms;
  readonly #seeds = new Map<number, Uint8Array>();
  #active = 0;
  #problem = "not opened yet";

  constructor(records: SeedRecords, kms: Kms) {
    this.#records = records;
    this.#kms = kms;
  }

  get sealed(): boolean {
    return this.#active === 0;
  }

  /** Why it is sealed, for the log and health; empty when it is not. */
  get problem(): string {
    return this.sealed ? this.#problem : "";
  }

  get activeId(): number {
    return this.#active;
  }

  /**
   * Loads every seed; makes the first one in a new store. Answers false, and stays (or becomes) sealed, when the KMS key is wrong or missing. Throws STORE_UNAVAILABLE.
   */
  async unseal(): Promise<boolean> {
    let records = await this.#records.list();
    try {
      if (records.length === 0) {
        await this.#records.insertIfAbsent(await this.wrapNew(FIRST));
        records = await this.#records.list();
      }
      for (const record of records) {
        if (!this.#seeds.has(record.id)) this.#seeds.set(record.id, await this.#kms.unwrap(record.wrapped, context(record.id)));
      }
      this.#active = Math.max(...records.map((record) => record.id));
      return true;
    } catch (error) {
      if (!isReason(error, "SEALED", "KMS_UNAVAILABLE")) throw error;
      this.#problem = error.message;
      return false;
    }
  }

  /** The seed that seals. Throws SEALED. */
  active(): { readonly id: number; readonly seed: Uint8Array } {
    if (this.sealed) throw sealedError();
    return { id: this.#active, seed: this.#seeds.get(this.#active)! };
  }

  /** A seed by id; one that is unknown is looked for once in the store. Throws SEALED. */
  async seed(id: number): Promise<Uint8Array> {
    if (this.sealed) throw sealedError();
    if (!this.#seeds.has(id)) await this.unseal();
    const seed = this.#seeds.get(id);
    if (seed === undefined) throw new LeaseholdError("SEALED", `no seed ${id}`);
    return seed;
  }

  /** A new random seed, wrapped, to be stored under `id`; it seals once `unseal` has found it there. */
  async wrapNew(id: number): Promise<Omit<SeedRecord, "createdAt">> {
    const seed = randomBytes(SEED_BYTES);
    const wrapped = await this.#kms.wrap(seed, context(id));
    seed.fill(0);
    return { id, provider: this.#kms.provider, kmsKeyId: this.#kms.keyId, wrapped };
  }

  /** A 32-byte key for one purpose, from the first seed, so that it is the same in every replica and after every rotation. Throws SEALED. */
  deriveKey(purpose: string): Uint8Array {
    const seed = this.#seeds.get(Math.min(...this.#seeds.keys()));
    if (this.sealed || seed === undefined) throw sealedError();
    return new Uint8Array(hkdfSync("sha256", seed, new Uint8Array(), `leasehold/v1/${purpose}`, 32));
  }
}

function context(id: number): Uint8Array {
  return Buffer.from(`leasehold/v1/seed/${id}`, "utf8");
}

function sealedError(): LeaseholdError {
  return new LeaseholdError("SEALED", "the keyring is sealed", { retryAfterMs: 5000 });
}
