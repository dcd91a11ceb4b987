import type { TokenBox } from "../crypto/token.ts";
import type { SnapshotPlace } from "../model/subscription.ts";

/** The cursor behind a delivery that a consumer was given. */
export interface AckPoint {
  readonly epoch: number;
  readonly revision: number;
  /** Of the consumer's stream: once the subscription was set anew, it says nothing any more. */
  readonly claim: number;
  readonly delivered: number;
  readonly skipped: number;
  readonly snapshot?: SnapshotPlace | null;
  readonly gap?: string;
}

const MAX_CHARS = 4096;

/** Acknowledgements as texts: sealed, because a snapshot's place is a name that the consumer may not see, and bound to their subscription. */
export class AckTokens {
  readonly #box: TokenBox;

  constructor(box: TokenBox) {
    this.#box = box;
  }

  /** Throws SEALED. */
  seal(uid: string, point: AckPoint): string {
    return Buffer.from(this.#box.seal(Buffer.from(JSON.stringify(point), "utf8"), context(uid))).toString("base64url");
  }

  /** Undefined for anything that was not sealed for this subscription. Throws SEALED. */
  open(uid: string, token: string): AckPoint | undefined {
    if (token.length > MAX_CHARS || !/^[A-Za-z0-9_-]+$/.test(token)) return undefined;
    const opened = this.#box.open(Buffer.from(token, "base64url"), context(uid));
    return opened === undefined ? undefined : (JSON.parse(Buffer.from(opened).toString("utf8")) as AckPoint);
  }
}

function context(uid: string): Uint8Array {
  return Buffer.from(`ack/1/${uid}`, "utf8");
}
