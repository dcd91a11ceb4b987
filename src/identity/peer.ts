import type { X509Certificate } from "node:crypto";
import type { Principal } from "../model/principal.ts";
import { type CertificateFields, CLIENT_AUTH, KEY_USAGE, readCertificate } from "./certificate.ts";
import { findPath } from "./path.ts";
import type { PeerRefusal } from "./refusal.ts";
import { parseSpiffeId } from "./spiffe-id.ts";
import type { TrustDomain } from "./trust-domain.ts";

export type PeerVerdict = { readonly principal: Principal; readonly notAfter: number; readonly refusal?: undefined } | { readonly refusal: PeerRefusal };

/** @param notAfter of an accepted peer: when the first certificate of its path ends, in Unix milliseconds. */
export interface Peer {
  /** Leaf first, then what the peer presented above it (`presentedChain`). */
  readonly chain: readonly X509Certificate[];
  /** OpenSSL found a path to the roots of `domain`, and of no other. */
  readonly authorized: boolean;
  /** The trust domain whose TLS context the connection was made with; undefined where it is configured no more. */
  readonly domain: TrustDomain | undefined;
}

/**
 * Who a peer is, by the X.509-SVID rules (SPIFFE X509-SVID sections 2–5): the checks OpenSSL leaves out (it lets through a CA as leaf, missing or wrong
 * key usage, two URI names or none, and another domain's name), and its path once more. Never throws; what can't be read is refused.
 */
export function identifyPeer(peer: Peer, now: number): PeerVerdict {
  try {
    return identify(peer, now);
  } catch {
    return { refusal: "MALFORMED" };
  }
}

function identify({ chain, authorized, domain }: Peer, now: number): PeerVerdict {
  const certificate = chain[0];
  if (certificate === undefined) return { refusal: "NO_CERTIFICATE" };
  const fields = readCertificate(certificate.raw);
  const wrong = usageRefusal(fields);
  if (wrong !== undefined) return { refusal: wrong };
  const principal = principalOf(fields);
  if (typeof principal === "string") return { refusal: principal };
  if (domain === undefined || principal.trustDomain !== domain.name) return { refusal: "OTHER_TRUST_DOMAIN" };
  const path = findPath({ certificate, fields }, chain, domain.roots, now);
  if (typeof path === "string") return { refusal: path };
  if (!authorized) return { refusal: "UNTRUSTED" };
  const revoked = domain.revocations.check(path, now);
  if (revoked !== undefined) return { refusal: revoked };
  return { principal, notAfter: Math.min(...path.map((step) => step.certificate.validToDate.getTime())) };
}

function usageRefusal({ isCa, keyUsage, extendedKeyUsage }: CertificateFields): PeerRefusal | undefined {
  if (isCa) return "CA_LEAF";
  if (keyUsage === undefined || !(keyUsage & KEY_USAGE.digitalSignature) || keyUsage & (KEY_USAGE.keyCertSign | KEY_USAGE.crlSign)) return "KEY_USAGE";
  if (extendedKeyUsage !== undefined && !extendedKeyUsage.includes(CLIENT_AUTH)) return "EXTENDED_KEY_USAGE";
  return undefined;
}

function principalOf({ uris }: CertificateFields): Principal | PeerRefusal {
  if (uris.length > 1) return "SEVERAL_SPIFFE_IDS";
  if (uris.length === 0) return "NO_SPIFFE_ID";
  return parseSpiffeId(uris[0]!) ?? "BAD_SPIFFE_ID";
}
