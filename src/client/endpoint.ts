import { readFileSync, statSync } from "node:fs";

/** Where a broker is, and who calls. `certificate`, `key` and `ca` are PEM texts, or the names of files that hold them; files are read anew when they change. */
export interface Endpoint {
  /** `host:port`, `unix:/path`, or several replicas: `ipv4:10.0.0.1:8443,10.0.0.2:8443`. */
  readonly address: string;
  readonly certificate: string;
  readonly key: string;
  /** CA that vouches for the broker. */
  readonly ca: string;
  /** Name the broker's certificate must carry, where it is not the address's. */
  readonly serverName?: string | undefined;
}

export interface Pems {
  readonly certificate: string;
  readonly key: string;
  readonly ca: string;
}

/** How often files are looked at, at most. */
const LOOK_MS = 1000;
const PARTS = ["certificate", "key", "ca"] as const;

/** The PEM texts of an endpoint, and whether its files have changed. Throws what the file system says of a file that can't be read. */
export class Material {
  readonly #endpoint: Endpoint;
  #pems: Pems;
  #stamp: string;
  #lookedAt = performance.now();

  constructor(endpoint: Endpoint) {
    this.#endpoint = endpoint;
    this.#stamp = stampOf(endpoint);
    this.#pems = pemsOf(endpoint);
  }

  get pems(): Pems {
    return this.#pems;
  }

  /** Whether there are files that could change. */
  get reloads(): boolean {
    return PARTS.some((part) => !isPem(this.#endpoint[part]));
  }

  /** True when the texts are others than at the last look. Files that can't be read now are as they were. @param force even if the last look was just now. */
  look(force = false): boolean {
    const now = performance.now();
    if (!this.reloads || (!force && now - this.#lookedAt < LOOK_MS)) return false;
    this.#lookedAt = now;
    try {
      const stamp = stampOf(this.#endpoint);
      if (stamp === this.#stamp) return false;
      const pems = pemsOf(this.#endpoint);
      this.#stamp = stamp;
      if (PARTS.every((part) => pems[part] === this.#pems[part])) return false;
      this.#pems = pems;
      return true;
    } catch {
      return false;
    }
  }
}

export function pemsOf(endpoint: Endpoint): Pems {
  const read = (text: string): string => (isPem(text) ? text : readFileSync(text, "utf8"));
  return { certificate: read(endpoint.certificate), key: read(endpoint.key), ca: read(endpoint.ca) };
}

/** A path has no such line, and a PEM text can't do without. */
function isPem(text: string): boolean {
  return text.includes("-----BEGIN ");
}

/** Follows links, as mounted secrets are swapped by them. */
function stampOf(endpoint: Endpoint): string {
  const files = PARTS.map((part) => endpoint[part]).filter((text) => !isPem(text));
  return files
    .map((file) => {
      const { mtimeMs, size, ino } = statSync(file);
      return `${mtimeMs} ${size} ${ino}`;
    })
    .join();
}
