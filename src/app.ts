import { randomUUID } from "node:crypto";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Capability } from "./model/capability.ts";
import { LateAudit } from "./audit/late.ts";
import { AuditChains } from "./audit/chains.ts";
import { Fingerprints } from "./audit/fingerprint.ts";
import { ReadAudit } from "./audit/read-writer.ts";
import { systemClock } from "./base/clock.ts";
import { createLog, type Log } from "./base/log.ts";
import { Metrics } from "./base/metrics.ts";
import { Catalog } from "./catalog/catalog.ts";
import { OpenTargets } from "./catalog/open-targets.ts";
import { LoginRotator } from "./catalog/rotate-login.ts";
import { CatalogWriter } from "./catalog/write.ts";
import type { Config } from "./config.ts";
import { Keyring } from "./crypto/keyring.ts";
import { TokenBox } from "./crypto/token.ts";
import { ENGINES } from "./engines/registry.ts";
import { parseSpiffeId } from "./identity/spiffe-id.ts";
import { openKms } from "./kms/registry.ts";
import { housekeeping } from "./housekeeping.ts";
import { createLedger } from "./leases/ledger.ts";
import { revokeLeasesWork } from "./leases/revoke-many.ts";
import { DEFAULT_LEASE_SETTINGS } from "./leases/settings.ts";
import { Operations } from "./operations/operations.ts";
import { rewrapWork } from "./operations/rewrap.ts";
import { retryUnseal } from "./retry-unseal.ts";
import { bootstrapAdministrators } from "./policy/bootstrap.ts";
import { PolicyLoader } from "./policy/loader.ts";
import { createPolicyStore } from "./policy/store.ts";
import { resourcesOf } from "./resources.ts";
import { Front } from "./rpc/front.ts";
import { createGrpcServerOptions, DEFAULT_FRONT_LIMITS } from "./rpc/front-limits.ts";
import { DEFAULT_OPTIONS } from "./rpc/options.ts";
import { PageTokens } from "./rpc/page-token.ts";
import { Pipeline } from "./rpc/pipeline.ts";
import { accessOf } from "./rpc/policy-access.ts";
import { RequestKeys } from "./rpc/request-key.ts";
import { RpcServer } from "./rpc/server.ts";
import { auditService } from "./rpc/services/audit.ts";
import { credentialService } from "./rpc/services/credentials.ts";
import { render } from "./rpc/services/delivery-message.ts";
import { rotationService } from "./rpc/services/rotations.ts";
import { identityService } from "./rpc/services/identity.ts";
import { leaseService } from "./rpc/services/leases.ts";
import { operationService } from "./rpc/services/operations.ts";
import { operatorService } from "./rpc/services/operator.ts";
import { policyService } from "./rpc/services/policies.ts";
import { secretService } from "./rpc/services/secrets.ts";
import { subscriptionService } from "./rpc/services/subscriptions.ts";
import { watchService } from "./rpc/services/watch.ts";
import { SERVICES } from "./rpc/methods.ts";
import { loginsOfTarget } from "./rotation/logins-of-target.ts";
import { ReadCounter } from "./rotation/reads.ts";
import { createRotations } from "./rotation/rotations.ts";
import { DEFAULT_ROTATION_SETTINGS } from "./rotation/settings.ts";
import { DueIndex } from "./schedule/due-index.ts";
import { Jobs } from "./schedule/jobs.ts";
import { Nudge } from "./schedule/nudge.ts";
import { createRedis, redisScope, statusOf } from "./schedule/redis.ts";
import { keyringApplier } from "./crypto/applier.ts";
import { secretApplier } from "./secrets/applier.ts";
import { SecretReader } from "./secrets/read.ts";
import { SecretWriter } from "./secrets/write.ts";
import { clientConfig, Pool } from "./store/db.ts";
import { GroupCommitter } from "./store/group-committer.ts";
import { seedRecords } from "./store/keyring.ts";
import { LateCommitter } from "./store/late-committer.ts";
import { LedgerClock } from "./store/ledger-clock.ts";
import { migrate } from "./store/migrate.ts";
import { openState, type StoreState } from "./store/state.ts";
import { createSubscriptions } from "./subscriptions/subscriptions.ts";
import { startTelemetry, type Telemetry } from "./telemetry/telemetry.ts";
import { PrometheusListener } from "./telemetry/prometheus-listener.ts";
import { Feed } from "./watch/feed.ts";
import { Hub } from "./watch/hub.ts";

export const VERSION = "0.1.0";

export interface App {
  /** What is listened on, with the port that was chosen for 0. */
  readonly address: string;
  /** Refuses new calls, ends what is under way within the configured time, writes what must be written, closes everything. Idempotent. */
  stop(): Promise<void>;
}

/** Start-up and shutdown times, milliseconds. */
const HEALTH_MS = 1000;
/** Not serving once the feed has not reached the store for so long. */
const STALE_MS = 10_000;
const TELEMETRY_STOP_MS = 3000;
/** For connections, once their calls have ended. */
const FRONT_DRAIN_MS = 1000;

/**
 * Builds every object in dependency order and starts to serve. Throws a LeaseholdError with one clear line (configuration, store, key, port). A keyring that does
 * not open is no reason not to start: every call is answered SEALED, health says NOT_SERVING, and it is tried again.
 */
export async function startApp(config: Config, env: NodeJS.ProcessEnv = process.env): Promise<App> {
  const metrics = new Metrics();
  const telemetry = await startTelemetry(env, metrics, VERSION);
  const log = createLog(config.logLevel, telemetry.logDestination);
  const stops: (() => Promise<void>)[] = [() => telemetry.stop(TELEMETRY_STOP_MS)];
  const drains: (() => Promise<void>)[] = [];
  const stop = once(async () => {
    for (const end of [...drains, ...stops.toReversed()]) await end().catch((error: Error) => log.warn({ error: error.message }, "a part did not stop well"));
  });
  try {
    const address = await build(config, env, { metrics, log, stops, drains, telemetry });
    return { address, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface Process {
  readonly metrics: Metrics;
  readonly log: Log;
  /** What ends the parts, in the order they were started. */
  readonly stops: (() => Promise<void>)[];
  /** What ends the calls under way, before any part is ended. */
  readonly drains: (() => Promise<void>)[];
  readonly telemetry: Telemetry;
}

async function build(config: Config, env: NodeJS.ProcessEnv, { metrics, log, stops, drains, telemetry: { spans, acts } }: Process): Promise<string> {
  const processId = randomUUID();
  const startedAt = Date.now();

  // The store and what is sealed in it.
  const kms = openKms(config.kms, env);
  await migrate(clientConfig(config.store));
  const state = await checkStore(config, log);
  const db = new Pool(config.store, log);
  stops.push(() => db.close());
  const keyring = new Keyring(seedRecords(db), kms);
  const committer = new LateCommitter();
  const reads = new LateAudit();
  const clock = new LedgerClock();

  // What follows from the change log.
  const policies = createPolicyStore();
  const catalog = new Catalog(db);
  const reader = new SecretReader(db, keyring, clock);
  const rotated = new ReadCounter(db);
  reader.onRead = (path, version) => rotated.count(path, version);
  const hub = new Hub();
  const feed = new Feed(db, clock, [new PolicyLoader(db, policies), catalog, secretApplier(reader), keyringApplier(keyring), rotated], log);
  feed.listen(hub);
  metrics.observe("leasehold_revision", "Newest revision this process has applied.", () => feed.applied);
  metrics.observe("leasehold_watches", "Open watches.", () => hub.size);

  // The domain.
  const targets = new OpenTargets(
    db,
    keyring,
    catalog,
    ENGINES,
    {
      clock: systemClock,
      instance: state.instance,
      connectTimeoutMs: 5000,
      statementTimeoutMs: 10_000,
      maxConnections: 8,
    },
    log,
  );
  stops.push(() => targets.close());
  const redis = config.redisUrl === "" ? undefined : createRedis(config.redisUrl, log);
  const nudge = redis === undefined ? undefined : new Nudge(redis, redisScope(state.instance));
  stops.push(async () => {
    nudge?.close();
    redis?.disconnect();
  });
  const operations = new Operations(db, committer, log);
  let admission: Pipeline["admission"] | undefined;
  const serving = (): boolean => (admission?.calls ?? 0) > 0;
  const domain = { db, clock, catalog, targets, keyring, committer, instance: state.instance, sweepMs: config.leases.sweepMs, log, metrics, spans: acts };
  const ledger = createLedger({
    ...domain,
    index: redis === undefined ? undefined : new DueIndex(redis, redisScope(state.instance)),
    settings: { ...DEFAULT_LEASE_SETTINGS, graceMs: config.leases.graceMs },
    serving,
  });
  operations.register(rewrapWork(db, keyring, log));
  operations.register(ledger.scan);
  const may = (id: string, capability: Capability, path: string): boolean => {
    const principal = parseSpiffeId(id);
    return principal !== undefined && policies.current.decide(principal, capability, path) === "allow";
  };
  operations.register(revokeLeasesWork(db, ledger.revoker, (id, path) => may(id, "revoke", path), serving));
  const mayWatch = (id: string, path: string): boolean => may(id, "watch", path);
  const subscriptions = createSubscriptions({ db, keyring, committer, feed, mayWatch, settings: config.subscriptions, render, log, metrics, spans: acts });
  const rotations = createRotations({
    ...domain,
    reads: rotated,
    index: redis === undefined ? undefined : new DueIndex(redis, redisScope(state.instance), "due-rotations"),
    gate: (uid) => ledger.gate.check(uid),
    settings: DEFAULT_ROTATION_SETTINGS,
  });
  const secrets = new SecretWriter(db, keyring, committer, reader);
  const requests = new RequestKeys(keyring);
  const pages = new PageTokens(new TokenBox(keyring, "page-token"));

  // The wire.
  const limits = { ...DEFAULT_FRONT_LIMITS, maxConnections: config.limits.maxConnections };
  const files = { certificateFile: config.tls.certificateFile, keyFile: config.tls.keyFile, trust: config.tls.trust };
  const front = new Front({ files, listen: config.listen, refuse: config.tls.refuse, log, metrics, limits });
  const resources = resourcesOf(db, catalog, ledger.owners);
  const access = accessOf(policies);
  const pipeline = new Pipeline(
    { connections: front, access, audit: reads, freshness: feed, resources, observer: { log, metrics, spans } },
    {
      ...DEFAULT_OPTIONS,
      maxInFlight: config.limits.maxInFlight,
      maxStreams: config.limits.maxStreams,
      maxStreamMs: config.limits.maxStreamMs,
      maxStallMs: config.limits.maxStallMs,
      rate: { perSecond: config.limits.ratePerSecond, burst: config.limits.rateBurst },
      auditReads: config.audit.reads,
    },
  );
  admission = pipeline.admission;
  feed.listen(pipeline.judge);
  const logins = new LoginRotator({ db, catalog, targets, keyring, committer, instance: state.instance, log, mayWork: (uid) => ledger.gate.check(uid) });
  const writer = new CatalogWriter(catalog, targets, keyring, committer);
  const policiesOf = (principal: Parameters<typeof policies.current.setOf>[0]): string[] =>
    [...new Set(policies.current.setOf(principal).variants.map((variant) => variant.policy))].sort();
  const info = () => ({
    version: VERSION,
    processId,
    instance: state.instance,
    epoch: String(feed.epoch),
    revision: BigInt(feed.applied),
    startTime: timestampFromMs(startedAt),
    redis: statusOf(redis),
    warnings: [
      ...front.status().warnings,
      ...(front.status().reloadFailure === undefined ? [] : [`TLS files: ${front.status().reloadFailure}`]),
      ...(keyring.sealed ? [keyring.problem] : []),
    ],
  });
  const methods = [
    ...pipeline.bind(SERVICES.SecretService, secretService({ db, reader, writer: secrets, pages, requests, freshness: feed })),
    ...pipeline.bind(SERVICES.CredentialService, credentialService(ledger.issuer, requests, { db, reader, rotators: rotations.rotators, freshness: feed })),
    ...pipeline.bind(SERVICES.RotationService, rotationService(db, rotations, pages, requests)),
    ...pipeline.bind(SERVICES.LeaseService, leaseService({ db, renewer: ledger.renewer, revoker: ledger.revoker, operations, clock, pages, requests })),
    ...pipeline.bind(SERVICES.WatchService, watchService({ db, feed, hub, reader, access, resources })),
    ...pipeline.bind(
      SERVICES.SubscriptionService,
      subscriptionService({ db, subscriptions, access, freshness: feed, pages, requests, parsePrincipal: parseSpiffeId }),
    ),
    ...pipeline.bind(
      SERVICES.PolicyService,
      policyService({ db, store: policies, committer, freshness: feed, resources, pages, requests, parsePrincipal: parseSpiffeId }),
    ),
    ...pipeline.bind(SERVICES.AuditService, auditService(db, kms, systemClock)),
    ...pipeline.bind(
      SERVICES.OperatorService,
      operatorService({
        db,
        catalog,
        writer,
        targets,
        keyring,
        committer,
        operations,
        pages,
        requests,
        info,
        gate: ledger.gate,
        revoker: ledger.revoker,
        logins,
        loginsOf: (target) => loginsOfTarget(db, rotations.rotators, target),
      }),
    ),
    ...pipeline.bind(SERVICES.OperationService, operationService(db, operations, requests, systemClock)),
    ...pipeline.bind(SERVICES.IdentityService, identityService(policiesOf)),
  ];
  const rpc = new RpcServer(pipeline, methods, createGrpcServerOptions(limits));

  // What needs the keyring: the chains of the audit, with them every change, and the feed that loads what is sealed.
  const open = async (): Promise<void> => {
    const fingerprints = new Fingerprints(keyring.deriveKey("audit-fingerprint"), 1);
    const chains = new AuditChains(db, kms, log);
    // An attempt that was cut off has left its chains; the next one has its own.
    const opening = randomUUID();
    const changes = await chains.open("changes", opening, state.epoch);
    const answers = await chains.open("reads", opening, state.epoch);
    const group = new GroupCommitter(
      config.store,
      changes,
      {
        fingerprint: (value) => fingerprints.of(value),
        committed: (tail, { changed, revision }, leasesOnly) => {
          chains.grown(tail);
          if (!changed) return;
          if (leasesOnly) {
            feed.nudgeSoon(revision);
            // Behind what whoever waited for the commit does next: a target is asked one turn later (base/gather.ts).
            if (nudge !== undefined) setImmediate(() => setImmediate(() => nudge.publish(revision)));
          } else {
            feed.nudge(revision);
            nudge?.publish(revision);
          }
        },
      },
      log,
    );
    const audit = new ReadAudit(config.store, answers, fingerprints, config.audit, log, (tail) => chains.grown(tail));
    committer.ready = group;
    reads.ready = audit;
    stops.push(
      () => chains.stop(),
      () => audit.close(),
      () => group.close(),
    );
    chains.start();
    await Promise.all([feed.start(), audit.connect()]);
    stops.push(() => feed.stop());
    if (await bootstrapAdministrators(db, committer, config.administrators, log)) await feed.catchUp(feed.applied + 1);
    nudge?.onNudge((revision) => feed.nudge(revision));
    ledger.clockwork.start();
    ledger.pool.start();
    rotations.clockwork.start();
    operations.look();
    subscriptions.start();
    const jobs = new Jobs([...housekeeping(db, secrets, operations, ledger, logins, config.changes), ...subscriptions.jobs, ...rotations.jobs], log);
    jobs.start();
    stops.push(
      () => operations.stop(),
      () => subscriptions.stop(),
      () => ledger.pool.stop(),
      () => ledger.drawn.stop(),
      () => ledger.clockwork.stop(),
      () => rotations.stop(),
      () => jobs.stop(),
    );
    pipeline.admission.sealed = false;
    // A ring can become sealed again: the store lost its seeds, or was restored to others.
    const check = (): void => {
      pipeline.admission.sealed = keyring.sealed;
      if (keyring.sealed) keyring.unseal().catch((error: Error) => log.warn({ error: error.message }, "the keyring could not be tried again"));
      rpc.health.set(!keyring.sealed && audit.healthy && feed.lagMs < STALE_MS);
    };
    check();
    const timer = setInterval(check, HEALTH_MS);
    stops.push(async () => clearInterval(timer));
  };
  pipeline.admission.sealed = true;
  const unsealed = await keyring.unseal();
  if (unsealed) await open();
  else retryUnseal(keyring, open, log, stops);

  await front.start(rpc.grpc);
  drains.push(
    () => rpc.drain(config.drainMs),
    () => front.drain(FRONT_DRAIN_MS),
  );
  if (config.metricsListen !== "") {
    const listener = new PrometheusListener(metrics, config.metricsListen);
    await listener.start();
    stops.push(() => listener.stop());
  }
  log.info({ address: front.address, version: VERSION, instance: state.instance, epoch: state.epoch }, "serving");
  return front.address;
}

/** On one session, where a transaction pooler would show. */
async function checkStore(config: Config, log: Log): Promise<StoreState> {
  const single = new Pool({ ...config.store, poolSize: 1 }, log);
  try {
    return await openState(single, config.store);
  } finally {
    await single.close();
  }
}

function once(run: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined;
  return () => (running ??= run());
}
