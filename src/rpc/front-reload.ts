import type { Clock } from "../base/clock.ts";
import { LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { checkMaterial, filesOf, type FileTexts, type FrontFiles, type Material, readFiles } from "./front-material.ts";
import { FileWatch } from "./front-watch.ts";

/** `crl` as well when a list went out of date without any file having changed. */
export type ReloadChange = "certificate" | "trust" | "crl";

export interface ReloadResult {
  readonly changed: readonly ReloadChange[];
  /** Why the files are not in use; undefined when they are. */
  readonly failure: string | undefined;
}

export interface ReloaderOptions {
  readonly files: FrontFiles;
  readonly pollMs: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly current: Material;
  /** Puts a good set to use; resolves when open connections have been looked at. */
  readonly use: (next: Material, changed: readonly ReloadChange[]) => Promise<void>;
}

/** Keeps the front's material up to date with its files. The new set is checked as a whole before any of it is used; the last good one stays otherwise. One reload at a time. */
export class Reloader {
  readonly #options: ReloaderOptions;
  readonly #watch: FileWatch;
  #current: Material;
  /** What the current material was made from; undefined: not known. */
  #texts: FileTexts | undefined;
  #checkedAt: number;
  #last: Promise<ReloadResult> = Promise.resolve({ changed: [], failure: undefined });
  #stopped = false;
  /** Why the newest files are not in use. */
  failure: string | undefined;

  constructor(options: ReloaderOptions) {
    this.#options = options;
    this.#current = options.current;
    this.#checkedAt = options.clock.now();
    this.#watch = new FileWatch(filesOf(options.files), options.pollMs, options.clock, () => void this.reload());
  }

  reload(): Promise<ReloadResult> {
    this.#last = this.#last.then(() => this.#reload());
    return this.#last;
  }

  stop(): void {
    this.#stopped = true;
    this.#watch.close();
  }

  async #reload(): Promise<ReloadResult> {
    if (this.#stopped) return { changed: [], failure: this.failure };
    const { files, clock, use } = this.#options;
    const now = clock.now();
    try {
      const texts = await readFiles(files);
      const next = this.#isKnown(texts) ? this.#current : checkMaterial(files, texts, now);
      const changed = this.#changes(next, now);
      this.#succeeded(next, changed);
      this.#current = next;
      this.#texts = texts;
      if (changed.length > 0) await use(next, changed);
      this.#checkedAt = now;
      return { changed, failure: undefined };
    } catch (error) {
      return { changed: [], failure: await this.#failed(error, now) };
    }
  }

  /** Parsing a long revocation list at every poll would be felt. */
  #isKnown(texts: FileTexts): boolean {
    return this.#texts !== undefined && [...texts].every(([file, text]) => this.#texts?.get(file) === text);
  }

  #changes(next: Material, now: number): ReloadChange[] {
    const changed: ReloadChange[] = [];
    if (next.pairDigest !== this.#current.pairDigest) changed.push("certificate");
    if (next.rootsDigest !== this.#current.rootsDigest) changed.push("trust");
    if (next.crlDigest !== this.#current.crlDigest || this.#listExpired(now)) changed.push("crl");
    return changed;
  }

  #listExpired(now: number): boolean {
    return [...this.#current.domains.values()].some(({ revocations: { nextExpiry } }) => nextExpiry > this.#checkedAt && nextExpiry <= now);
  }

  #succeeded(next: Material, changed: readonly ReloadChange[]): void {
    const { log } = this.#options;
    if (this.failure !== undefined || changed.length > 0) log.info({ changed }, "TLS files are in use");
    this.failure = undefined;
    if (changed.length === 0) return;
    this.#count("ok");
    for (const warning of next.warnings) log.warn({ warning }, "TLS files");
  }

  /** Said once, not at every poll. A revocation list that went out of date counts even while other files are wrong. */
  async #failed(error: unknown, now: number): Promise<string> {
    const { log, use } = this.#options;
    const failure = error instanceof LeaseholdError ? error.message : "unexpected failure";
    if (failure !== this.failure) {
      this.failure = failure;
      this.#count("failed");
      log.warn({ failure, ...(!(error instanceof LeaseholdError) && { error: String(error) }) }, "the new TLS files are not used; the last good ones stay");
    }
    if (this.#listExpired(now)) await use(this.#current, ["crl"]);
    this.#checkedAt = now;
    return failure;
  }

  #count(result: "ok" | "failed"): void {
    this.#options.metrics.counter("leasehold_tls_reloads_total", "Changes of certificate, key, bundle or revocation list, by result.", { result }).add();
  }
}
