import { randomUUID } from "node:crypto";
import { isReason, LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { type Actor, systemActor } from "../model/audit.ts";
import type { Command, Committer } from "../store/command.ts";
import type { Db } from "../store/db.ts";
import { refusal } from "../store/group-committer.ts";
import { claimOperation, findOperation, type OperationRecord, saveProgress } from "../store/operations.ts";

const CLAIM_MS = 30_000;

/** How far a piece of work has come. */
export interface Progress {
  /** Where to go on after a crash; any JSON. */
  readonly cursor: unknown;
  readonly done: number;
  readonly total: number;
}

/** One kind of background work, in steps that can be repeated: a step that was cut off is done again from the last cursor. */
export interface Work {
  readonly kind: string;
  /** Does the next step; answers undefined when there is none left. Throwing leaves the operation running, to be taken up again. */
  step(operation: OperationRecord, progress: Progress, signal: AbortSignal): Promise<Progress | undefined>;
}

/** Starts, works off, cancels and waits for operations. Any replica takes up what no other holds. */
export class Operations {
  readonly #db: Db;
  readonly #committer: Committer;
  readonly #works = new Map<string, Work>();
  readonly #log: Log;
  readonly #abort = new AbortController();
  #running: Promise<void> | undefined;

  constructor(db: Db, committer: Committer, log: Log) {
    this.#db = db;
    this.#committer = committer;
    this.#log = log;
  }

  register(work: Work): void {
    this.#works.set(work.kind, work);
  }

  /** Writes the operation and answers at once; the work goes on in the background. A replay of the request_id answers the first one. */
  async start(
    kind: string,
    path: string,
    args: Readonly<Record<string, unknown>>,
    actor: Actor,
    request: Command["request"],
  ): Promise<{ readonly operation: OperationRecord; readonly recorded: boolean }> {
    const outcome = await this.#committer.commit({ kind: "operation.create", path, actor, request, args: { id: randomUUID(), kind, args } });
    if (!outcome.ok) throw refusal(outcome);
    this.look();
    return { operation: await this.get(String(outcome.result["id"])), recorded: outcome.replay !== true };
  }

  /** Throws OPERATION_NOT_FOUND. */
  async get(id: string): Promise<OperationRecord> {
    const found = await findOperation(this.#db, id);
    if (found === undefined) throw new LeaseholdError("OPERATION_NOT_FOUND");
    return found;
  }

  /** What is done stays done; an operation that has ended stays as it ended. */
  async cancel(id: string, actor: Actor, request: Command["request"]): Promise<{ readonly operation: OperationRecord; readonly recorded: boolean }> {
    const outcome = await this.#committer.commit({ kind: "operation.finish", path: `operations/${id}`, actor, request, args: { id, state: "CANCELLED" } });
    if (!outcome.ok) throw refusal(outcome);
    return { operation: await this.get(id), recorded: outcome.replay !== true };
  }

  /** Looks for work now; the schedule calls it at intervals too, so that work of a dead replica is taken up. */
  look(): void {
    if (this.#abort.signal.aborted) return;
    this.#running ??= this.#workOff()
      .catch((error: Error) => this.#log.warn({ error: error.message }, "operations could not be worked on"))
      .finally(() => {
        this.#running = undefined;
      });
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#running;
  }

  async #workOff(): Promise<void> {
    for (;;) {
      const operation = this.#abort.signal.aborted ? undefined : await claimOperation(this.#db, CLAIM_MS);
      if (operation === undefined) return;
      await this.#workOn(operation);
    }
  }

  async #workOn(operation: OperationRecord): Promise<void> {
    const work = this.#works.get(operation.kind);
    if (work === undefined) return; // a newer replica's kind: its claim ends by itself
    let progress: Progress = { cursor: operation.cursor, done: operation.done, total: operation.total };
    try {
      while (!this.#abort.signal.aborted) {
        const next = await work.step(operation, progress, this.#abort.signal);
        if (next === undefined) return await this.#finish(operation, "SUCCEEDED", "");
        progress = next;
        if (!(await saveProgress(this.#db, operation.id, progress.cursor, progress.done, progress.total, CLAIM_MS))) return;
      }
    } catch (error) {
      this.#log.warn({ operation: operation.id, kind: operation.kind, error: (error as Error).message }, "an operation's step failed");
      if (isReason(error, "STORE_UNAVAILABLE", "SEALED", "KMS_UNAVAILABLE", "TARGET_UNAVAILABLE", "DRAINING", "AUDIT_UNAVAILABLE")) return;
      await this.#finish(operation, "FAILED", error instanceof LeaseholdError ? error.reason : "INTERNAL");
    }
  }

  async #finish(operation: OperationRecord, state: "SUCCEEDED" | "FAILED", problem: string): Promise<void> {
    const actor = systemActor(`operation.${operation.kind}`, operation.id);
    await this.#committer.commit({ kind: "operation.finish", path: `operations/${operation.id}`, actor, args: { id: operation.id, state, problem } });
  }
}
