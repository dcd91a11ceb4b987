import { KEY_USAGE, readCertificate, SERVER_AUTH } from "./certificate.ts";
import { parseSpiffeId } from "./spiffe-id.ts";

/**
 * The SPIFFE id of a server that we call, by the rules for X.509-SVIDs that OpenSSL leaves out: the same as for our own callers (peer.ts), with the other extended usage. OpenSSL has checked path and dates, against the one CA given for it.
 * Undefined for a certificate that is none, or can't be read.
 */
export function serverSpiffeId(der: Uint8Array): string | undefined {
  try {
    const { isCa, keyUsage, extendedKeyUsage, uris } = readCertificate(der);
    if (isCa || keyUsage === undefined || !(keyUsage & KEY_USAGE.digitalSignature) || keyUsage & (KEY_USAGE.keyCertSign | KEY_USAGE.crlSign)) return undefined;
    if (extendedKeyUsage !== undefined && !extendedKeyUsage.includes(SERVER_AUTH)) return undefined;
    return uris.length === 1 ? parseSpiffeId(uris[0]!)?.id : undefined;
  } catch {
    return undefined;
  }
}
