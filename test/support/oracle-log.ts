import pg from "pg";
import type { TestDatabase } from "./postgres.ts";

/** A row of the change log, as a watcher must be told of it. */
export interface Row {
  readonly revision: number;
  readonly type: number;
  readonly path: string;
  readonly version: number;
  /** `leases/<id>`, or empty. */
  readonly lease: string;
  readonly at: number;
  readonly removed: boolean;
}

/** What a row is about: a lease, or what is at the path. */
export function keyOf({ path, lease }: Pick<Row, "path" | "lease">): string {
  return lease === "" ? path : lease;
}

interface Stored {
  readonly revision: string;
  readonly type: number;
  readonly path: string;
  readonly version: string;
  readonly lease_id: string | null;
  readonly at: Date;
  readonly removed: boolean;
}

/** The change log itself, read from the store behind the brokers' back, and kept where they prune it. */
export class OracleLog {
  readonly rows: Row[] = [];
  readonly #client: pg.Client;

  private constructor(client: pg.Client) {
    this.#client = client;
  }

  static async open(store: TestDatabase): Promise<OracleLog> {
    const { host, port, database, superuser } = store;
    const client = new pg.Client({ host, port, database, ...superuser });
    client.on("error", () => {});
    await client.connect();
    return new OracleLog(client);
  }

  #reading: Promise<number> = Promise.resolve(0);

  /** Reads on to the head, and answers it. Throws when the log has a hole. */
  read(): Promise<number> {
    this.#reading = this.#reading.then(() => this.#read());
    return this.#reading;
  }

  async #read(): Promise<number> {
    const after = this.rows.at(-1)?.revision ?? 0;
    const { rows } = await this.#client.query<Stored>(
      "select revision, type, path, version, lease_id, at, removed from change_log where revision > $1 order by revision",
      [after],
    );
    for (const row of rows) {
      const revision = Number(row.revision);
      const last = this.rows.at(-1)?.revision;
      if (last !== undefined && revision !== last + 1) throw new Error(`the change log goes from ${last} to ${revision}`);
      const { lease_id: lease, ...rest } = row;
      this.rows.push({ ...rest, revision, version: Number(row.version), lease: lease === null ? "" : `leases/${lease}`, at: row.at.getTime() });
    }
    return this.rows.at(-1)?.revision ?? 0;
  }

  /** Prunes as the broker does, everything but the newest `keep` of what is kept here. */
  async prune(keep: number): Promise<void> {
    const head = await this.read();
    await this.#client.query(
      `with floor as (select max(revision) as revision from change_log where revision <= $1 and revision < (select max(revision) from change_log)),
            raised as (update store_state set floor_revision = greatest(floor_revision, floor.revision) from floor where floor.revision is not null)
       delete from change_log using floor where change_log.revision <= floor.revision`,
      [head - keep],
    );
  }

  /** What happened below these folders. */
  below(...folders: readonly string[]): Row[] {
    return this.rows.filter((row) => folders.some((folder) => row.path.startsWith(folder)));
  }

  close(): Promise<void> {
    return this.#client.end();
  }
}
