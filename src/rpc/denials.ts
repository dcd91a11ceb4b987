import type { AuditWriter } from "../audit/audit.ts";
import type { AuditEntry } from "../model/audit.ts";

type Done = (error: Error | undefined, freshRevision: number) => void;

interface Window {
  readonly timer: NodeJS.Timeout;
  /** The first one after the window's opener; stands for all of them. */
  entry: AuditEntry | undefined;
  count: number;
  waiting: Done[];
}

const MAX_WINDOWS = 10_000;

/**
 * Records of refusals. The first of its kind is written at once; equal ones (principal, action, capability, path, reason) within the
 * window become one record with their exact count when it ends, and their answers wait for it. So a caller without rights costs at most two
 * records a window (attack 36), every answer still follows its record, and hammering earns a delay.
 */
export class Denials {
  readonly #audit: AuditWriter;
  readonly #windowMs: number;
  readonly #windows = new Map<string, Window>();

  constructor(audit: AuditWriter, windowMs: number) {
    this.#audit = audit;
    this.#windowMs = windowMs;
  }

  append(entry: AuditEntry, done: Done): void {
    const key = `${entry.principal}\n${entry.action}\n${entry.capability}\n${entry.path}\n${entry.outcome}`;
    const window = this.#windows.get(key);
    if (window !== undefined) {
      window.entry ??= entry;
      window.count++;
      window.waiting.push(done);
      return;
    }
    if (this.#windows.size < MAX_WINDOWS) {
      const timer = setTimeout(() => this.#close(key), this.#windowMs);
      this.#windows.set(key, { timer, entry: undefined, count: 0, waiting: [] });
    }
    this.#write(entry, done);
  }

  /** Ends every window now; for the drain. */
  flush(): void {
    for (const key of this.#windows.keys()) this.#close(key);
  }

  #close(key: string): void {
    const window = this.#windows.get(key);
    if (window === undefined) return;
    clearTimeout(window.timer);
    this.#windows.delete(key);
    const { entry, count, waiting } = window;
    if (entry === undefined) return;
    const all: Done = (error, fresh) => {
      for (const done of waiting) done(error, fresh);
    };
    this.#write(count > 1 ? { ...entry, count } : entry, all);
  }

  /** A writer that throws is one that failed. */
  #write(entry: AuditEntry, done: Done): void {
    try {
      this.#audit.append(entry, done);
    } catch (error) {
      done(error instanceof Error ? error : new Error("audit append threw", { cause: error }), 0);
    }
  }
}
