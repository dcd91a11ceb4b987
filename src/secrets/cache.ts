import type { Prepared } from "../crypto/envelope.ts";
import type { Kept } from "../crypto/memory-seal.ts";
import type { SecretMeta, VersionMeta } from "../model/secret.ts";

/**
 * A version as the cache holds it: first as it was loaded, sealed, with the derived key beside it (HKDF and open 28 µs, open alone 4); once it was
 * opened, sealed for this process's memory (1.2 µs), unless it is large.
 */
export interface CachedVersion {
  readonly meta: VersionMeta;
  /** Undefined once destroyed. */
  value: Prepared | Kept | undefined;
}

export interface CachedSecret {
  readonly secret: SecretMeta;
  readonly versions: Map<number, CachedVersion>;
}

const MAX_ENTRIES = 20_000;
const MAX_VERSIONS_EACH = 8;

/**
 * Sealed secrets by path. The feed forgets a path when it changed; a load that began before such a change must not put the older row back,
 * so each load takes a ticket that the change voids.
 */
export class SecretCache {
  readonly #entries = new Map<string, CachedSecret>();
  readonly #loading = new Map<string, Set<Ticket>>();

  get(path: string): CachedSecret | undefined {
    return this.#entries.get(path);
  }

  begin(path: string): Ticket {
    const ticket: Ticket = { path, valid: true };
    const tickets = this.#loading.get(path);
    if (tickets === undefined) this.#loading.set(path, new Set([ticket]));
    else tickets.add(ticket);
    return ticket;
  }

  /** Keeps what was loaded, unless it changed meanwhile. Always ends the ticket. */
  end(ticket: Ticket, secret: SecretMeta | undefined, version: CachedVersion | undefined): void {
    const tickets = this.#loading.get(ticket.path);
    tickets?.delete(ticket);
    if (tickets?.size === 0) this.#loading.delete(ticket.path);
    if (!ticket.valid || secret === undefined || version === undefined) return;
    const known = this.#entries.get(ticket.path);
    const entry = known?.secret.generation === secret.generation ? known : { secret, versions: new Map<number, CachedVersion>() };
    if (entry.versions.size >= MAX_VERSIONS_EACH) entry.versions.clear();
    entry.versions.set(version.meta.version, version);
    this.#entries.delete(ticket.path);
    this.#entries.set(ticket.path, entry);
    if (this.#entries.size > MAX_ENTRIES) this.#entries.delete(this.#entries.keys().next().value!);
  }

  forget(path: string): void {
    this.#entries.delete(path);
    for (const ticket of this.#loading.get(path) ?? []) ticket.valid = false;
  }

  clear(): void {
    this.#entries.clear();
    for (const tickets of this.#loading.values()) for (const ticket of tickets) ticket.valid = false;
  }
}

export interface Ticket {
  readonly path: string;
  valid: boolean;
}
