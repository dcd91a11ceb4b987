const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/;
const VALUE = /^[\x20-\x7e]{0,4096}$/;
/** Ours, or the connection's. */
const OURS =
  /^(content-|leasehold-|proxy-|sec-)|^(host|connection|keep-alive|transfer-encoding|te|trailer|upgrade|expect|user-agent|idempotency-key|accept-encoding)$/;
/** What carries credentials is sealed. */
const SECRET = /^(authorization|cookie)$|(^|-)(api-?key|token|secret|password)(-|$)/;

/** Why a header can't be sent; undefined: it can. @param secret that it is among the sealed ones. */
export function headerProblem(name: string, value: string, secret: boolean): string | undefined {
  const lower = name.toLowerCase();
  if (!NAME.test(name)) return "has a name that is no header's";
  if (OURS.test(lower)) return "has a header that the broker sets itself";
  if (!secret && SECRET.test(lower)) return "has a header that carries credentials: put it into secret_headers";
  if (!VALUE.test(value) || value !== value.trim()) return "has a value that is not printable ASCII of at most 4096 characters";
  return undefined;
}
