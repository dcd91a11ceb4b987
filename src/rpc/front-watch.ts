import { type FSWatcher, watch } from "node:fs";
import { dirname } from "node:path";
import type { Clock } from "../base/clock.ts";

/** Long enough for a certificate and its key to be written one after the other. */
const DEBOUNCE_MS = 200;

/**
 * Calls back, soon after, when anything happens in the folders of `files`, and every `pollMs` anyway. Folders, because Kubernetes swaps a symlink beside
 * the file (`..data`) and others rename over it; the poll, because network file systems report nothing. What changed is for the callback to find out.
 */
export class FileWatch {
  readonly #watchers: FSWatcher[] = [];
  readonly #clock: Clock;
  readonly #pollMs: number;
  readonly #run: () => void;
  #cancelPoll: () => void = () => {};
  #cancelSoon: (() => void) | undefined;
  #closed = false;

  constructor(files: readonly string[], pollMs: number, clock: Clock, run: () => void) {
    this.#clock = clock;
    this.#pollMs = pollMs;
    this.#run = run;
    for (const folder of new Set(files.map((file) => dirname(file)))) this.#watch(folder);
    this.#poll();
  }

  close(): void {
    this.#closed = true;
    for (const watcher of this.#watchers) watcher.close();
    this.#cancelPoll();
    this.#cancelSoon?.();
  }

  #watch(folder: string): void {
    try {
      const watcher = watch(folder, { persistent: false }, () => this.#soon());
      // The folder went, or there are no more inotify instances: the poll goes on.
      watcher.on("error", () => watcher.close());
      this.#watchers.push(watcher);
    } catch {
      // As above.
    }
  }

  #soon(): void {
    if (this.#closed || this.#cancelSoon !== undefined) return;
    this.#cancelSoon = this.#clock.after(DEBOUNCE_MS, () => {
      this.#cancelSoon = undefined;
      this.#run();
    });
  }

  #poll(): void {
    this.#cancelPoll = this.#clock.after(this.#pollMs, () => {
      this.#run();
      if (!this.#closed) this.#poll();
    });
  }
}
