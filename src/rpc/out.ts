import type { DescMessage } from "@bufbuild/protobuf";
import type { Answer } from "./definition.ts";

/** The server's side of a stream. */
export interface Out<O extends DescMessage> {
  /**
   * Sends one message, once the records of `call.recordItem` (or, before the first message, the call's own record) are durable. Resolves
   * when the next may be written: a slow client slows the handler, nothing is queued here (lesson 38). Rejects when the stream has ended; let that
   * rejection go through: the status is already decided. One write at a time. A write that gets nowhere for `maxStallMs` ends the stream with WATCH_TOO_SLOW.
   */
  write(message: Answer<O>): Promise<void>;
  /**
   * `write` for who serves thousands of streams: answers undefined when the next may be written at once, and throws what can't be sent at all.
   * @param handed runs when the message is on its way and no record or judgement can stop it any more.
   */
  send(message: Answer<O>, handed?: () => void): Promise<void> | undefined;
  /** When set: what the client goes on with, put into the error's metadata as `resume_token` when we end the stream (drain, age, certificate, slowness). Empty: nothing yet. */
  resumeToken: (() => string) | undefined;
  /** When set: throws PERMISSION_DENIED once the caller may not have this stream any more. Asked after each change of policy, before anything else is sent. */
  judge: (() => void) | undefined;
  /** When set: runs once, when the stream has ended, however. Must not throw. (`call.signal` does the same and weighs a kilobyte a stream.) */
  onEnd: (() => void) | undefined;
}
