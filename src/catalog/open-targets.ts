import { LeaseholdError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { Sensitive } from "../base/sensitive.ts";
import { open } from "../crypto/envelope.ts";
import type { Keyring } from "../crypto/keyring.ts";
import type { EngineDefinition, OpenOptions, Target } from "../engines/engine.ts";
import { sealedPassword } from "../store/catalog.ts";
import type { Db } from "../store/db.ts";
import type { TargetRecord } from "../model/target.ts";
import type { Catalog } from "./catalog.ts";
import { targetBinding } from "./binding.ts";
import { TargetSlots } from "./target-slots.ts";

/** Connections of all replicas to one target, unless the target says otherwise. */
const DEFAULT_MAX_CONNECTIONS = 16;

interface Opened {
  readonly generation: number;
  readonly target: Promise<Target<unknown>>;
}

/** The targets this process has connections to, one set each; opened when first needed, opened anew when the target was changed. */
export class OpenTargets {
  readonly #db: Db;
  readonly #keyring: Keyring;
  readonly #catalog: Catalog;
  readonly #engines: readonly EngineDefinition<never, never>[];
  readonly #options: OpenOptions;
  readonly #slots: TargetSlots;
  readonly #open = new Map<string, Opened>();

  constructor(db: Db, keyring: Keyring, catalog: Catalog, engines: readonly EngineDefinition<never, never>[], options: OpenOptions, log: Log) {
    this.#db = db;
    this.#keyring = keyring;
    this.#catalog = catalog;
    this.#engines = engines;
    this.#options = options;
    this.#slots = new TargetSlots(db, log);
  }

  /** Throws TARGET_NOT_FOUND, SEALED, STORE_UNAVAILABLE. */
  async open(uid: string): Promise<Target<unknown>> {
    const record = this.#catalog.targetByUid(uid);
    if (record === undefined) throw new LeaseholdError("TARGET_NOT_FOUND");
    const known = this.#open.get(uid);
    if (known?.generation === record.generation) return known.target;
    const opened: Opened = { generation: record.generation, target: this.#connect(record) };
    this.#open.set(uid, opened);
    if (known !== undefined) void closeLater(known);
    opened.target.catch(() => {
      if (this.#open.get(uid) === opened) this.#open.delete(uid);
    });
    return opened.target;
  }

  engine(name: string): EngineDefinition {
    const engine = this.#engines.find((candidate) => candidate.name === name);
    if (engine === undefined) throw new LeaseholdError("INTERNAL", `unknown engine ${name}`);
    // The configurations in the store were checked by the engine of that name when they were written.
    return engine;
  }

  async close(): Promise<void> {
    const all = [...this.#open.values()];
    this.#open.clear();
    await Promise.all(all.map(closeLater));
  }

  async #connect(record: TargetRecord): Promise<Target<unknown>> {
    const sealed = await sealedPassword(this.#db, record.uid);
    if (sealed === undefined) throw new LeaseholdError("TARGET_MISCONFIGURED", "no password", { metadata: { problem: "no_password" } });
    const password = new Sensitive(await open(this.#keyring, sealed, targetBinding(record.uid)));
    return this.openAs(record, record.login, password);
  }

  /** Connections as another login, for who closes them; undefined: the configured one. */
  openAs(record: TargetRecord, login: string | undefined, password: Sensitive): Target<unknown> {
    const most = (record.config as { readonly maxConnections?: number }).maxConnections ?? DEFAULT_MAX_CONNECTIONS;
    const options = { ...this.#options, maxConnections: Math.min(most, this.#options.maxConnections), limit: this.#slots.of(record.uid, most) };
    return this.engine(record.engine).open(login === undefined ? record.config : { ...record.config, username: login }, password, options);
  }
}

async function closeLater(opened: Opened): Promise<void> {
  const target = await opened.target.catch(() => undefined);
  await target?.close();
}
