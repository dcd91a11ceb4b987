import type { Principal } from "../model/principal.ts";

const MAX_BYTES = 2048;
// https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md, section 2: the scheme and the trust domain in lower case, segments
// neither empty nor dots alone, nothing percent-encoded. A workload has a path.
const SPIFFE_ID = /^spiffe:\/\/([a-z0-9._-]{1,255})((?:\/[A-Za-z0-9._-]+)+)$/;

/** The principal that a URI names; undefined where it is not a workload's SPIFFE id in canonical form (it is never repaired). */
export function parseSpiffeId(uri: string): Principal | undefined {
  // The pattern lets ASCII alone through, so that characters are bytes.
  const match = uri.length <= MAX_BYTES ? SPIFFE_ID.exec(uri) : null;
  if (match === null) return undefined;
  const segments = match[2]!.slice(1).split("/");
  if (segments.some((segment) => segment === "." || segment === "..")) return undefined;
  return { id: uri, trustDomain: match[1]!, segments };
}
