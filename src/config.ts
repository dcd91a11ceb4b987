import { readFileSync } from "node:fs";
import { dirname, isAbsolute, resolve } from "node:path";
import { parse } from "yaml";
import type { FieldViolation } from "./base/errors.ts";
import { configError, Section } from "./config-reader.ts";
import type { KeepChanges } from "./store/changes.ts";
import type { StoreConfig } from "./store/db.ts";

/** Everything an operator sets in the file or the environment. Times are milliseconds; paths are absolute. */
export interface Config {
  readonly listen: string;
  readonly logLevel: string;
  /** `host:port` of the plain HTTP listener with `/metrics`; empty: none. */
  readonly metricsListen: string;
  readonly store: StoreConfig & { readonly allowNoFsync: boolean };
  readonly redisUrl: string;
  readonly kms: { readonly provider: "file"; readonly path: string; readonly create: boolean } | { readonly provider: "env"; readonly variable: string };
  readonly tls: TlsSettings;
  readonly audit: { readonly reads: "durable" | "async"; readonly timeoutMs: number; readonly lingerMs: number };
  readonly limits: {
    readonly maxInFlight: number;
    readonly maxStreams: number;
    readonly maxStreamMs: number;
    readonly maxStallMs: number;
    readonly maxConnections: number;
    readonly ratePerSecond: number;
    readonly rateBurst: number;
  };
  readonly leases: { readonly graceMs: number; readonly sweepMs: number };
  readonly changes: KeepChanges;
  readonly subscriptions: {
    /** Whether a sink may be reached without TLS elsewhere than on a loopback address. */
    readonly allowPlaintext: boolean;
    /** Where sinks may be: host names, or `*.` and a domain; empty: anywhere. */
    readonly hosts: readonly string[];
    readonly retryMinMs: number;
    readonly retryMaxMs: number;
    readonly claimMs: number;
    /** Of one subscription, which then stands still. */
    readonly maxDeadLetters: number;
  };
  readonly drainMs: number;
  /** Who may do everything while there is no policy at all. */
  readonly administrators: readonly string[];
}

export interface TlsSettings {
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly trust: readonly TrustDomain[];
  /** `handshake`: whoever may not come in is refused before HTTP/2. `explain` (development): every call is answered with the reason. */
  readonly refuse: "handshake" | "explain";
}

export interface TrustDomain {
  readonly trustDomain: string;
  readonly bundleFile: string;
  readonly crlFile: string | undefined;
  readonly crlExpired: "refuse" | "accept";
}

const DAY = 86_400_000;

/**
 * Reads a YAML file; `LEASEHOLD_<SECTION>_<NAME>` in the environment wins. Throws REQUEST_INVALID that names every mistake at once.
 * Relative paths in it are relative to the file.
 */
export function loadConfig(path: string, env: NodeJS.ProcessEnv = process.env): Config {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw configError([{ field: path, description: `can't be read (${(error as NodeJS.ErrnoException).code ?? "unknown"})` }]);
  }
  return parseConfig(text, env, dirname(resolve(path)));
}

export function parseConfig(text: string, env: NodeJS.ProcessEnv, folder: string): Config {
  const problems: FieldViolation[] = [];
  let values: unknown;
  try {
    values = parse(text, { maxAliasCount: 10 });
  } catch (error) {
    throw configError([{ field: "file", description: `is not YAML: ${(error as Error).message.split("\n")[0]}` }]);
  }
  const root = new Section(values, "", env, problems);
  const config = read(root, (path) => (isAbsolute(path) || path === "" ? path : resolve(folder, path)));
  root.end();
  if (problems.length > 0) throw configError(problems);
  return Object.freeze(config);
}

function read(root: Section, file: (path: string) => string): Config {
  const config: Config = {
    listen: listenAddress(root, "listen", "127.0.0.1:8443"),
    logLevel: logLevel(root.section("log")),
    metricsListen: metrics(root.section("metrics")),
    store: store(root.section("store"), file),
    redisUrl: redis(root.section("redis")),
    kms: kms(root.section("kms"), file),
    tls: tls(root.section("tls"), file),
    audit: audit(root.section("audit")),
    limits: limits(root.section("limits")),
    leases: leases(root.section("leases")),
    changes: changes(root.section("changes")),
    subscriptions: subscriptions(root.section("subscriptions")),
    drainMs: root.time("drain", "15s", 0, 600_000),
    administrators: root.texts("administrators"),
  };
  return config;
}

function listenAddress(section: Section, name: string, fallback: string): string {
  const value = section.text(name, fallback);
  if (value !== "" && !/^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$/.test(value) && !value.startsWith("unix:"))
    section.wrong(name, "must be host:port or unix:/path");
  return value;
}

function logLevel(section: Section): string {
  const level = section.choice("level", ["trace", "debug", "info", "warn", "error", "fatal", "silent"], "info");
  section.end();
  return level;
}

function metrics(section: Section): string {
  const listen = listenAddress(section, "listen", "");
  section.end();
  return listen;
}

function store(section: Section, file: (path: string) => string): Config["store"] {
  let url = section.text("url", "");
  const urlFile = section.text("url_file", "");
  if (url !== "" && urlFile !== "") section.wrong("url_file", "must not be set beside url");
  if (urlFile !== "") {
    try {
      url = readFileSync(file(urlFile), "utf8").trim();
    } catch {
      section.wrong("url_file", "can't be read");
    }
  }
  if (url !== "" && !/^postgres(ql)?:\/\//.test(url)) section.wrong("url", "must begin with postgresql://");
  const result = {
    url,
    poolSize: section.whole("pool_size", 8, 1, 200),
    statementTimeoutMs: section.time("statement_timeout", "5s", 100, 300_000),
    connectTimeoutMs: section.time("connect_timeout", "3s", 100, 60_000),
    requireSyncStandby: section.flag("require_sync_standby", false),
    allowNoFsync: section.flag("allow_no_fsync", false),
  };
  section.end();
  return result;
}

function redis(section: Section): string {
  const url = section.text("url", "");
  if (url !== "" && !/^rediss?:\/\//.test(url) && !url.startsWith("/"))
    section.wrong("url", "must begin with redis:// or rediss://, or be the path of a socket");
  section.end();
  return url;
}

function kms(section: Section, file: (path: string) => string): Config["kms"] {
  const provider = section.choice("provider", ["file", "env"], "file");
  const path = section.text("file", provider === "file" ? undefined : "");
  const create = section.flag("create", false);
  const variable = section.text("variable", "LEASEHOLD_KMS_KEY");
  section.end();
  return provider === "file" ? { provider, path: file(path), create } : { provider, variable };
}

function tls(section: Section, file: (path: string) => string): TlsSettings {
  const trust = section.list("trust").map((item) => {
    const domain = {
      trustDomain: item.text("trust_domain"),
      bundleFile: file(item.text("bundle")),
      crlFile: file(item.text("crl", "")) || undefined,
      crlExpired: item.choice("crl_expired", ["refuse", "accept"], "refuse"),
    };
    if (!/^[a-z0-9._-]{1,255}$/.test(domain.trustDomain)) item.wrong("trust_domain", "must be a lower-case trust domain such as acme.test");
    item.end();
    return domain;
  });
  if (trust.length === 0) section.wrong("trust", "must name at least one trust domain");
  if (new Set(trust.map((domain) => domain.trustDomain)).size !== trust.length) section.wrong("trust", "must name each trust domain once");
  const result = {
    certificateFile: file(section.text("certificate")),
    keyFile: file(section.text("key")),
    trust,
    refuse: section.choice("refuse", ["handshake", "explain"], "handshake"),
  };
  section.end();
  return result;
}

function audit(section: Section): Config["audit"] {
  const reads = section.choice("reads", ["durable", "async"], "durable");
  // No answer waits for an asynchronous record, so it may gather: PostgreSQL then takes 18 instead of 29 µs of CPU a record.
  const linger = reads === "async" ? "10ms" : "0ms";
  const result = { reads, timeoutMs: section.time("timeout", "3s", 100, 60_000), lingerMs: section.time("linger", linger, 0, 100) };
  section.end();
  return result;
}

function limits(section: Section): Config["limits"] {
  const result = {
    maxInFlight: section.whole("max_in_flight", 5000, 1, 1_000_000),
    maxStreams: section.whole("max_streams", 20_000, 1, 1_000_000),
    maxStreamMs: section.time("max_stream_age", "30m", 1000, DAY),
    maxStallMs: section.time("max_stream_stall", "30s", 1000, 600_000),
    maxConnections: section.whole("max_connections", 10_000, 1, 1_000_000),
    ratePerSecond: section.whole("rate_per_second", 50_000, 1, 10_000_000),
    rateBurst: section.whole("rate_burst", 100_000, 1, 10_000_000),
  };
  section.end();
  return result;
}

function leases(section: Section): Config["leases"] {
  const result = { graceMs: section.time("grace", "60s", 1000, DAY), sweepMs: section.time("sweep_interval", "5s", 100, 600_000) };
  section.end();
  return result;
}

function changes(section: Section): Config["changes"] {
  const result = {
    keepMs: section.time("keep", "7d", 60_000, 3650 * DAY),
    keepForSubscriptionsMs: section.time("keep_for_subscriptions", "30d", 60_000, 3650 * DAY),
    maxForSubscriptions: section.whole("max_for_subscriptions", 10_000_000, 1000, 10_000_000_000),
  };
  section.end();
  return result;
}

function subscriptions(section: Section): Config["subscriptions"] {
  const result = {
    allowPlaintext: section.flag("allow_plaintext", false),
    hosts: section.texts("hosts"),
    retryMinMs: section.time("retry_min", "1s", 10, 60_000),
    retryMaxMs: section.time("retry_max", "5m", 10, DAY),
    claimMs: section.time("claim", "15s", 500, 300_000),
    maxDeadLetters: section.whole("max_dead_letters", 10_000, 1, 1_000_000),
  };
  for (const host of result.hosts)
    if (!/^(\*\.)?[a-z0-9]([a-z0-9.:-]*[a-z0-9])?$/.test(host)) section.wrong("hosts", "must be lower-case host names, addresses, or *. and a domain");
  section.end();
  return result;
}
