import { LeaseholdError, type FieldViolation } from "./base/errors.ts";

/** A place in the configuration: reads values by name and remembers what is wrong with them, so that every mistake is reported at once. */
export class Section {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #path: string;
  readonly #env: NodeJS.ProcessEnv;
  readonly #problems: FieldViolation[];
  readonly #known = new Set<string>();

  constructor(values: unknown, path: string, env: NodeJS.ProcessEnv, problems: FieldViolation[]) {
    const isObject = typeof values === "object" && values !== null && !Array.isArray(values);
    if (values !== undefined && values !== null && !isObject) problems.push({ field: path, description: "must be a mapping" });
    this.#values = isObject ? (values as Record<string, unknown>) : {};
    this.#path = path;
    this.#env = env;
    this.#problems = problems;
  }

  section(name: string): Section {
    this.#known.add(name);
    return new Section(this.#values[name], this.#at(name), this.#env, this.#problems);
  }

  list(name: string): Section[] {
    this.#known.add(name);
    const value = this.#values[name] ?? [];
    if (!Array.isArray(value)) {
      this.wrong(name, "must be a list");
      return [];
    }
    return value.map((item, i) => new Section(item, `${this.#at(name)}[${i}]`, this.#env, this.#problems));
  }

  /** @param fallback undefined: the value is required. */
  text(name: string, fallback?: string): string {
    const value = this.#read(name);
    if (value === undefined) {
      if (fallback === undefined) this.wrong(name, "is required");
      return fallback ?? "";
    }
    if (typeof value !== "string") {
      this.wrong(name, "must be text");
      return fallback ?? "";
    }
    return value;
  }

  texts(name: string): string[] {
    this.#known.add(name);
    const value = this.#values[name] ?? [];
    if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
    this.wrong(name, "must be a list of texts");
    return [];
  }

  choice<T extends string>(name: string, choices: readonly T[], fallback: T): T {
    const value = this.#read(name) ?? fallback;
    if (choices.includes(value as T)) return value as T;
    this.wrong(name, `must be one of ${choices.join(", ")}`);
    return fallback;
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.#read(name) ?? fallback;
    if (value === true || value === "true") return true;
    if (value === false || value === "false") return false;
    this.wrong(name, "must be true or false");
    return fallback;
  }

  whole(name: string, fallback: number, least: number, most: number): number {
    const value = this.#read(name) ?? fallback;
    const number = typeof value === "string" && /^[0-9]{1,15}$/.test(value) ? Number(value) : value;
    if (typeof number === "number" && Number.isInteger(number) && number >= least && number <= most) return number;
    this.wrong(name, `must be a whole number from ${least} to ${most}`);
    return fallback;
  }

  /** A length of time such as `250ms`, `5s`, `10m`, `1h`; answers milliseconds. */
  time(name: string, fallback: string, leastMs: number, mostMs: number): number {
    const value = this.#read(name) ?? fallback;
    const ms = typeof value === "string" ? parseTime(value) : undefined;
    if (ms !== undefined && ms >= leastMs && ms <= mostMs) return ms;
    this.wrong(name, `must be a length of time such as 250ms, 5s, 10m or 1h, from ${leastMs}ms to ${mostMs}ms`);
    return parseTime(fallback)!;
  }

  wrong(name: string, description: string): void {
    this.#problems.push({ field: this.#at(name), description });
  }

  /** Call last: names that mean nothing are mistakes too. */
  end(): void {
    for (const name of Object.keys(this.#values)) if (!this.#known.has(name)) this.wrong(name, "is not a setting");
  }

  /** The environment wins: `LEASEHOLD_STORE_URL` for `store.url`. Lists have no variable. */
  #read(name: string): unknown {
    this.#known.add(name);
    const variable = `LEASEHOLD_${this.#at(name).replaceAll(".", "_").toUpperCase()}`;
    const fromEnv = this.#path.includes("[") ? undefined : this.#env[variable];
    const value = fromEnv ?? this.#values[name];
    return value === null ? undefined : value;
  }

  #at(name: string): string {
    return this.#path === "" ? name : `${this.#path}.${name}`;
  }
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

function parseTime(text: string): number | undefined {
  const match = /^([0-9]{1,9})(ms|s|m|h|d)$/.exec(text);
  return match === null ? undefined : Number(match[1]) * UNITS[match[2]!]!;
}

/** REQUEST_INVALID with every problem in `violations` and, one a line, in the message. */
export function configError(problems: readonly FieldViolation[]): LeaseholdError {
  const lines = problems.map(({ field, description }) => `  ${field}: ${description}`);
  return new LeaseholdError(
    "REQUEST_INVALID",
    `the configuration has ${problems.length} ${problems.length === 1 ? "mistake" : "mistakes"}:\n${lines.join("\n")}`,
    {
      violations: problems,
    },
  );
}
