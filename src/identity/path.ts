import type { X509Certificate } from "node:crypto";
import { readCertificate } from "./certificate.ts";
import type { PeerRefusal } from "./refusal.ts";
import type { Issuer } from "./revocations.ts";

/** Leaf and at most this many intermediates. */
const MAX_STEPS = 8;

/** The leaf and what the peer presented above it, leaf first. Only a claim: an unsigned look-alike can stand in it (finding 7). */
export function presentedChain(leaf: X509Certificate): X509Certificate[] {
  const chain = [leaf];
  let at = leaf.issuerCertificate;
  while (at !== undefined && chain.length < MAX_STEPS && at.fingerprint256 !== chain.at(-1)!.fingerprint256) {
    chain.push(at);
    at = at.issuerCertificate;
  }
  return chain;
}

/**
 * The path from the leaf to one of `roots`: leaf first, root last; every step issued and *signed* by the next, every issuer a CA in date. Where there
 * is none: EXPIRED or NOT_YET_VALID when only a date is wrong, else UNTRUSTED. OpenSSL has checked the same path and more (lengths, name constraints,
 * critical extensions) against the same roots; this is the second lock. Throws DerError for an unreadable issuer.
 */
export function findPath(leaf: Issuer, presented: readonly X509Certificate[], roots: readonly Issuer[], now: number): Issuer[] | PeerRefusal {
  const path = [leaf];
  let late: PeerRefusal | undefined = dateRefusal(leaf.certificate, now);
  for (let at = leaf.certificate, i = 1; ; i++) {
    const signers = roots.filter((root) => issued(at, root.certificate));
    const root = signers.find((signer) => dateRefusal(signer.certificate, now) === undefined) ?? signers[0];
    if (root !== undefined) return (late ?? dateRefusal(root.certificate, now)) || [...path, root];
    const above = presented[i];
    if (above === undefined || !above.ca || !issued(at, above)) return "UNTRUSTED";
    late ??= dateRefusal(above, now);
    path.push({ certificate: above, fields: readCertificate(above.raw) });
    at = above;
  }
}

function issued(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

function dateRefusal(certificate: X509Certificate, now: number): "EXPIRED" | "NOT_YET_VALID" | undefined {
  if (certificate.validToDate.getTime() <= now) return "EXPIRED";
  return certificate.validFromDate.getTime() > now ? "NOT_YET_VALID" : undefined;
}
