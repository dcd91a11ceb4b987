import type { Log } from "../base/log.ts";

/** Something that is done again and again; every replica does it, so it must bear company. */
export interface Job {
  readonly name: string;
  readonly everyMs: number;
  run(): Promise<unknown>;
}

/** Runs each job at its interval (±10 %, so that replicas spread), never twice at a time; a failure is logged and the next turn tries again. */
export class Jobs {
  readonly #jobs: readonly Job[];
  readonly #log: Log;
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #running = new Set<Promise<void>>();
  #stopped = false;

  constructor(jobs: readonly Job[], log: Log) {
    this.#jobs = jobs;
    this.#log = log;
  }

  start(): void {
    for (const job of this.#jobs) this.#again(job);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#timers) clearTimeout(timer);
    await Promise.all(this.#running);
  }

  #again(job: Job): void {
    if (this.#stopped) return;
    const timer = setTimeout(
      () => {
        this.#timers.delete(timer);
        const running = this.#run(job).finally(() => {
          this.#running.delete(running);
          this.#again(job);
        });
        this.#running.add(running);
      },
      job.everyMs * (0.9 + 0.2 * Math.random()),
    );
    timer.unref();
    this.#timers.add(timer);
  }

  async #run(job: Job): Promise<void> {
    try {
      await job.run();
    } catch (error) {
      this.#log.warn({ job: job.name, error: (error as Error).message }, "a periodic job failed; it is tried again");
    }
  }
}
