import type { X509Certificate } from "node:crypto";
import { type CertificateFields, KEY_USAGE } from "./certificate.ts";
import type { Crl } from "./crl.ts";
import type { PeerRefusal } from "./refusal.ts";

/** A CA certificate with the fields node:crypto does not show. */
export interface Issuer {
  readonly certificate: X509Certificate;
  readonly fields: CertificateFields;
}

/** Clocks of CAs may be ahead of ours by this much. */
const SKEW_MS = 300_000;
const MAX_CACHED = 1000;

/**
 * One trust domain's revocation lists. A serial number means something only together with the CA that gave it, and a CA is its name *and* its
 * key: a list counts for an issuer whose name it bears and whose key signed it (lesson 40: matching by serial alone revokes strangers).
 * A CA without a list is not checked: Node's `crl` option refuses all its clients, which makes one list more an outage.
 */
export class Revocations {
  readonly #policy: "refuse" | "accept";
  readonly #lists: ReadonlyMap<string, readonly Crl[]>;
  /** Lists that a root of the bundle has signed: they are no other CA's. */
  readonly #claimed = new Set<Crl>();
  /** By the issuer's fingerprint. */
  readonly #byIssuer = new Map<string, Crl | "invalid" | undefined>();
  /** When the first list in use goes out of date, in Unix milliseconds; Infinity with policy `accept`. */
  readonly nextExpiry: number;
  /** Names (as OpenSSL prints them) of roots without a list, when there are lists at all. */
  readonly uncovered: readonly string[];

  /**
   * Throws an Error that says what is wrong: a list that bears a root's name without its signature, one from the future, or, under `refuse`,
   * one that never goes out of date. Lists of other issuers are kept for intermediates and checked when one appears.
   */
  constructor(crls: readonly Crl[], roots: readonly Issuer[], policy: "refuse" | "accept", now: number) {
    this.#policy = policy;
    this.#lists = Map.groupBy(crls, (crl) => crl.issuer);
    for (const [i, crl] of crls.entries()) {
      const named = roots.filter((root) => root.fields.subject === crl.issuer);
      if (named.length > 0 && !named.some((root) => signed(crl, root))) throw new Error(`list ${i + 1} is not signed by the CA it names`);
      if (crl.thisUpdate > now + SKEW_MS) throw new Error(`list ${i + 1} is from the future`);
      if (policy === "refuse" && crl.nextUpdate === undefined) throw new Error(`list ${i + 1} has no next update`);
      if (named.length > 0) this.#claimed.add(crl);
    }
    this.uncovered =
      crls.length === 0 ? [] : roots.filter((root) => this.#listOf(root) === undefined).map((root) => root.certificate.subject.replaceAll("\n", ", "));
    this.nextExpiry = policy === "accept" ? Infinity : Math.min(Infinity, ...crls.map((crl) => crl.nextUpdate ?? Infinity).filter((at) => at > now));
  }

  /** @param path leaf first, then its issuers up to a root, each step's signature verified already. */
  check(path: readonly Issuer[], now: number): PeerRefusal | undefined {
    for (let i = 0; i + 1 < path.length; i++) {
      const list = this.#listOf(path[i + 1]!);
      if (list === "invalid") return "CRL_INVALID";
      if (list?.serials.has(path[i]!.fields.serial)) return "REVOKED";
      if (list !== undefined && this.#policy === "refuse" && (list.nextUpdate ?? 0) <= now) return "CRL_EXPIRED";
    }
    return undefined;
  }

  #listOf(issuer: Issuer): Crl | "invalid" | undefined {
    const named = this.#lists.get(issuer.fields.subject);
    if (named === undefined) return undefined;
    const key = issuer.certificate.fingerprint256;
    if (this.#byIssuer.has(key)) return this.#byIssuer.get(key);
    const own = named.filter((crl) => signed(crl, issuer)).toSorted((a, b) => b.thisUpdate - a.thisUpdate)[0];
    const list = own ?? (named.every((crl) => this.#claimed.has(crl)) ? undefined : "invalid");
    if (this.#byIssuer.size >= MAX_CACHED) this.#byIssuer.clear();
    this.#byIssuer.set(key, list);
    return list;
  }
}

function signed(crl: Crl, { certificate, fields }: Issuer): boolean {
  const mayList = fields.keyUsage === undefined || (fields.keyUsage & KEY_USAGE.crlSign) !== 0;
  return mayList && crl.isSignedBy(certificate.publicKey);
}
