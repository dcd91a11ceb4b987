import { keyIdOf, open, seal } from "../crypto/envelope.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { SecretData } from "../model/secret.ts";
import { secretBinding } from "../secrets/binding.ts";
import { decodePayload, encodePayload, wipe } from "../secrets/payload.ts";
import type { Db } from "../store/db.ts";
import { findVersion } from "../store/secrets.ts";

/** The values that one act of a worker has opened: wiped together at its end, unless a rotator that did not answer in time may still be using them. */
export class OpenedValues {
  readonly #db: Db;
  readonly #keyring: Keyring;
  readonly #opened = new Map<string, SecretData>();

  constructor(db: Db, keyring: Keyring) {
    this.#db = db;
    this.#keyring = keyring;
  }

  /** Undefined when there is no such version any more, or it was deleted. */
  async of(secretUid: string, version: number): Promise<SecretData | undefined> {
    const key = `${secretUid} ${version}`;
    const known = this.#opened.get(key);
    if (known !== undefined || version === 0) return known;
    const row = await findVersion(this.#db, secretUid, version);
    if (row?.sealed === undefined || row.meta.deletedAt !== undefined) return undefined;
    const payload = await open(this.#keyring, row.sealed, secretBinding(secretUid, version));
    const data = decodePayload(payload);
    payload.fill(0);
    this.#opened.set(key, data);
    return data;
  }

  /** Sealed as this version, for the committer. */
  seal(secretUid: string, version: number, data: SecretData): { readonly sealed: string; readonly key_id: number } {
    const payload = encodePayload(data);
    const sealed = seal(this.#keyring, secretBinding(secretUid, version), payload);
    payload.fill(0);
    return { sealed: Buffer.from(sealed).toString("base64"), key_id: keyIdOf(sealed) };
  }

  wipe(): void {
    for (const data of this.#opened.values()) wipe(data);
    this.#opened.clear();
  }
}
