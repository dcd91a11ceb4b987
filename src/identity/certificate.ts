import { DerError, DerFields, derItems, derOne, hex, serialOf, TAG } from "./der.ts";

/** First octet of the KeyUsage bits (RFC 5280 4.2.1.3). */
export const KEY_USAGE = { digitalSignature: 0x80, keyCertSign: 0x04, crlSign: 0x02 } as const;
/** 1.3.6.1.5.5.7.3.1 and .2, in hex as `extendedKeyUsage` has them. */
export const SERVER_AUTH = "2b06010505070301";
export const CLIENT_AUTH = "2b06010505070302";

/**
 * What the rules need of a certificate and node:crypto does not show rightly: its `keyUsage` is the extended one, and its `ca` is false for
 * a certificate with CA:TRUE that may not sign certificates.
 */
export interface CertificateFields {
  /** Upper-case hex without leading zeros. */
  readonly serial: string;
  /** DER of the names, for comparing; as hex. */
  readonly issuer: string;
  readonly subject: string;
  readonly isCa: boolean;
  /** Undefined where the extension is absent. */
  readonly keyUsage: number | undefined;
  /** OIDs in hex; undefined where the extension is absent. */
  readonly extendedKeyUsage: readonly string[] | undefined;
  /** URI names of the subject alternative name, as Latin-1 text: each byte one character, nothing decoded. */
  readonly uris: readonly string[];
}

const ID = { keyUsage: "551d0f", subjectAltName: "551d11", basicConstraints: "551d13", extendedKeyUsage: "551d25" };
const URI_NAME = 0x86;

/** Throws DerError for what is not a certificate in DER, or has an extension twice (readers differ in which one they take). */
export function readCertificate(der: Uint8Array): CertificateFields {
  const outer = new DerFields(derOne(der, TAG.sequence).body);
  const tbs = new DerFields(outer.required(TAG.sequence).body);
  tbs.optional(0xa0);
  const serial = serialOf(tbs.required(TAG.integer));
  tbs.required(TAG.sequence);
  const issuer = hex(tbs.required(TAG.sequence).raw);
  tbs.required(TAG.sequence);
  const subject = hex(tbs.required(TAG.sequence).raw);
  tbs.required(TAG.sequence);
  tbs.optional(0x81, 0xa1);
  tbs.optional(0x82, 0xa2);
  const extensions = readExtensions(tbs.optional(0xa3)?.body);
  tbs.end();
  return {
    serial,
    issuer,
    subject,
    isCa: isCa(extensions.get(ID.basicConstraints)?.value),
    keyUsage: keyUsage(extensions.get(ID.keyUsage)?.value),
    extendedKeyUsage: extendedKeyUsage(extensions.get(ID.extendedKeyUsage)?.value),
    uris: uris(extensions.get(ID.subjectAltName)?.value),
  };
}

export interface Extension {
  readonly critical: boolean;
  readonly value: Uint8Array;
}

/** By OID in hex. @param explicit the content of the `[3]` (certificate) or `[0]` (CRL) that wraps the list; undefined: none. */
export function readExtensions(explicit: Uint8Array | undefined): ReadonlyMap<string, Extension> {
  const found = new Map<string, Extension>();
  if (explicit === undefined) return found;
  for (const item of derItems(derOne(explicit, TAG.sequence).body)) {
    if (item.tag !== TAG.sequence) throw new DerError("extension");
    const fields = new DerFields(item.body);
    const id = hex(fields.required(TAG.oid).body);
    const critical = fields.optional(TAG.boolean)?.body[0];
    const { body: value } = fields.required(TAG.octetString);
    fields.end();
    if (found.has(id)) throw new DerError("extension twice");
    found.set(id, { critical: critical !== undefined && critical !== 0, value });
  }
  return found;
}

function isCa(value: Uint8Array | undefined): boolean {
  if (value === undefined) return false;
  const flag = new DerFields(derOne(value, TAG.sequence).body).optional(TAG.boolean);
  // BER readers take any non-zero octet for true: so do we, where true is the dangerous answer.
  return flag !== undefined && flag.body.some((octet) => octet !== 0);
}

function keyUsage(value: Uint8Array | undefined): number | undefined {
  if (value === undefined) return undefined;
  const { body } = derOne(value, TAG.bitString);
  if (body.length < 1 || body[0]! > 7) throw new DerError("key usage");
  return body[1] ?? 0;
}

function extendedKeyUsage(value: Uint8Array | undefined): readonly string[] | undefined {
  if (value === undefined) return undefined;
  return [...derItems(derOne(value, TAG.sequence).body)].map((item) => hex(item.body));
}

function uris(value: Uint8Array | undefined): readonly string[] {
  if (value === undefined) return [];
  const names = [...derItems(derOne(value, TAG.sequence).body)];
  return names.filter((name) => name.tag === URI_NAME).map((name) => Buffer.from(name.body).toString("latin1"));
}
