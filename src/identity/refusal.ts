/** Why a peer is not let in. For logs, metrics and, in development mode, the answer: a closed list that tells nothing of what the peer sent. */
export type PeerRefusal =
  | "NO_CERTIFICATE"
  | "MALFORMED"
  | "NOT_YET_VALID"
  | "EXPIRED"
  | "CA_LEAF"
  | "KEY_USAGE"
  | "EXTENDED_KEY_USAGE"
  | "NO_SPIFFE_ID"
  | "SEVERAL_SPIFFE_IDS"
  | "BAD_SPIFFE_ID"
  | "OTHER_TRUST_DOMAIN"
  | "UNTRUSTED"
  | "REVOKED"
  | "CRL_EXPIRED"
  | "CRL_INVALID";

/** One sentence each, for a person: constant, so that it may be logged and shown. */
export const REFUSAL_TEXT: Readonly<Record<PeerRefusal, string>> = {
  NO_CERTIFICATE: "no client certificate",
  MALFORMED: "the certificate can't be read",
  NOT_YET_VALID: "the certificate is not yet valid",
  EXPIRED: "the certificate, or one above it, has expired",
  CA_LEAF: "the certificate is a CA's",
  KEY_USAGE: "key usage must have digitalSignature and neither keyCertSign nor cRLSign",
  EXTENDED_KEY_USAGE: "extended key usage is present and lacks clientAuth",
  NO_SPIFFE_ID: "the certificate has no URI name",
  SEVERAL_SPIFFE_IDS: "the certificate has more than one URI name",
  BAD_SPIFFE_ID: "the URI name is no canonical SPIFFE id with a path",
  OTHER_TRUST_DOMAIN: "the SPIFFE id is of another trust domain than this connection was made for",
  UNTRUSTED: "no path to a CA of its own trust domain",
  REVOKED: "the certificate, or one above it, is revoked",
  CRL_EXPIRED: "the revocation list of its CA is out of date",
  CRL_INVALID: "the revocation list of its CA is not signed by it",
};
