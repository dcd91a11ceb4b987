import type { DescMessage } from "@bufbuild/protobuf";
import type { Answer } from "./definition.ts";

/** The server's side of a stream. */
export interface Out<O extends DescMessage> {
  /**
   * Sends one message, once the records of `call.recordItem` (or, before the first message, the call's own record) are durable. Resolves
   * when the next may be written: a slow client slows the handler, nothing is queued here (lesson 38). Rejects when the stream has ended; let that
   * rejection go through: the status is already decided. One write at a time.
   */
  write(message: Answer<O>): Promise<void>;
  /** When set: what the client goes on with, put into the error's metadata as `resume_token` when we end the stream (drain, certificate). */
  resumeToken: (() => string) | undefined;
}
