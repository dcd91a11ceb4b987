import { constants, type KeyObject, verify, type VerifyKeyObjectInput } from "node:crypto";
import { readExtensions } from "./certificate.ts";
import { DerError, DerFields, type DerItem, derItems, derOne, hex, serialOf, TAG, timeOf } from "./der.ts";

/** A certificate revocation list (RFC 5280 section 5), parsed; not yet known to be genuine: see `isSignedBy`. */
export interface Crl {
  /** DER of the issuer's name, as hex. */
  readonly issuer: string;
  readonly thisUpdate: number;
  /** Unix milliseconds; undefined where the list names none. */
  readonly nextUpdate: number | undefined;
  /** Upper-case hex without leading zeros. */
  readonly serials: ReadonlySet<string>;
  /** True when `key` made the signature. */
  isSignedBy(key: KeyObject): boolean;
}

const TIMES = [TAG.utcTime, TAG.generalizedTime];
/** Signature algorithm (OID in hex) → digest and key type. RSA-PSS is left out: its parameters would have to be read as well. */
const ALGORITHMS: Readonly<Record<string, { readonly digest: string | null; readonly type: string }>> = {
  "2a8648ce3d040302": { digest: "sha256", type: "ec" },
  "2a8648ce3d040303": { digest: "sha384", type: "ec" },
  "2a8648ce3d040304": { digest: "sha512", type: "ec" },
  "2a864886f70d01010b": { digest: "sha256", type: "rsa" },
  "2a864886f70d01010c": { digest: "sha384", type: "rsa" },
  "2a864886f70d01010d": { digest: "sha512", type: "rsa" },
  "2b6570": { digest: null, type: "ed25519" },
};

/** Throws an Error for what is no complete, direct CRL: a critical extension (delta, indirect or partitioned lists) must not be passed over. */
export function parseCrl(der: Uint8Array): Crl {
  const outer = new DerFields(derOne(der, TAG.sequence).body);
  const signed = outer.required(TAG.sequence);
  const algorithm = outer.required(TAG.sequence);
  const signature = outer.required(TAG.bitString).body;
  outer.end();
  if (signature[0] !== 0) throw new DerError("signature");

  const tbs = new DerFields(signed.body);
  tbs.optional(TAG.integer);
  const inner = tbs.required(TAG.sequence);
  if (hex(inner.raw) !== hex(algorithm.raw)) throw new DerError("signature algorithm differs");
  const issuer = hex(tbs.required(TAG.sequence).raw);
  const thisUpdate = timeOf(tbs.required(...TIMES));
  const next = tbs.optional(...TIMES);
  const serials = readEntries(tbs.optional(TAG.sequence));
  refuseCritical(tbs.optional(0xa0)?.body);
  tbs.end();

  const check = verifier(algorithm);
  return {
    issuer,
    thisUpdate,
    nextUpdate: next && timeOf(next),
    serials,
    isSignedBy: (key) => check(signed.raw, key, signature.subarray(1)),
  };
}

function readEntries(list: DerItem | undefined): Set<string> {
  const serials = new Set<string>();
  if (list === undefined) return serials;
  for (const entry of derItems(list.body)) {
    if (entry.tag !== TAG.sequence) throw new DerError("revoked certificate");
    const fields = new DerFields(entry.body);
    serials.add(serialOf(fields.required(TAG.integer)));
    fields.required(...TIMES);
    const extensions = fields.optional(TAG.sequence);
    if (extensions !== undefined) refuseCritical(extensions.raw);
    fields.end();
  }
  return serials;
}

function refuseCritical(explicit: Uint8Array | undefined): void {
  for (const { critical } of readExtensions(explicit).values()) if (critical) throw new DerError("delta, indirect and partitioned lists are not supported");
}

function verifier(algorithm: DerItem): (data: Uint8Array, key: KeyObject, signature: Uint8Array) => boolean {
  const known = ALGORITHMS[hex(new DerFields(algorithm.body).required(TAG.oid).body)];
  if (known === undefined) throw new DerError("signature algorithm is not supported");
  return (data, key, signature) => {
    if (key.asymmetricKeyType !== known.type) return false;
    const input: KeyObject | VerifyKeyObjectInput = known.type === "rsa" ? { key, padding: constants.RSA_PKCS1_PADDING } : key;
    return verify(known.digest, data, input, signature);
  };
}
