import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type PostgresRole,
  PostgresRole_OwnedObjects as Owned,
  type RedisTarget,
  type Role,
  type RoleSchema,
  type Target,
  type TargetSchema,
  TlsMode,
} from "../../gen/leasehold/v1/operator_service_pb.ts";
import { invalid } from "../../base/errors.ts";
import {
  DEFAULT_SCRAM_ITERATIONS,
  type MysqlRoleConfig,
  type MysqlTargetConfig,
  type PostgresRoleConfig,
  type PostgresTargetConfig,
  type RedisRoleConfig,
  type RedisTargetConfig,
} from "../../engines/registry.ts";
import type { RoleRecord, TargetRecord } from "../../model/target.ts";

// The one place that knows which message of the API is which engine's configuration.

type EngineName = NonNullable<Target["engine"]["case"]>;
interface EngineConfig {
  readonly engine: EngineName;
  readonly config: object;
}

const MUST_BE_SET = "must be set: postgres, redis or mysql";

export function targetConfig({ engine }: Target): EngineConfig {
  switch (engine.case) {
    case "postgres": {
      const config: PostgresTargetConfig = { ...serverOf(engine.value), database: engine.value.database };
      return { engine: engine.case, config };
    }
    case "redis":
      return { engine: engine.case, config: redisTarget(engine.value) };
    case "mysql":
      return { engine: engine.case, config: serverOf(engine.value) satisfies MysqlTargetConfig };
    case undefined:
      throw invalid("target.engine", MUST_BE_SET);
  }
}

export function targetEngine(record: TargetRecord): NonNullable<MessageInitShape<typeof TargetSchema>["engine"]> {
  const config = record.config as RedisTargetConfig & { readonly database?: string };
  const { host, port, username, tls, maxConnections = 0 } = config;
  const value = { host, port, username, tlsMode: tls.mode === "disable" ? TlsMode.DISABLE : TlsMode.VERIFY_FULL, caPem: tls.caPem ?? "", maxConnections };
  switch (record.engine as EngineName) {
    case "postgres":
      return { case: "postgres", value: { ...value, database: config.database ?? "" } };
    case "redis":
      return { case: "redis", value: { ...value, allowLogins: [...(config.allowLogins ?? [])] } };
    case "mysql":
      return { case: "mysql", value };
  }
}

export function roleConfig({ engine }: Role): EngineConfig {
  switch (engine.case) {
    case "postgres":
      return { engine: engine.case, config: postgresRole(engine.value) };
    case "redis":
      return { engine: engine.case, config: { rules: [...engine.value.rules] } satisfies RedisRoleConfig };
    case "mysql": {
      const { database, grants, hostPattern, connectionLimit } = engine.value;
      const config: MysqlRoleConfig = {
        ...(database === "" ? {} : { database }),
        grants: grants.map(({ privileges, schema, table }) => ({ privileges: [...privileges], schema, ...(table === "" ? {} : { table }) })),
        hostPattern: hostPattern || "%",
        ...(connectionLimit === 0 ? {} : { connectionLimit }),
      };
      return { engine: engine.case, config };
    }
    case undefined:
      throw invalid("role.engine", MUST_BE_SET);
  }
}

export function roleEngine(record: RoleRecord): NonNullable<MessageInitShape<typeof RoleSchema>["engine"]> {
  switch (record.engine as EngineName) {
    case "postgres": {
      const config = record.config as PostgresRoleConfig;
      const owned = config.ownedObjects;
      const value = {
        database: config.database,
        memberOf: [...config.memberOf],
        scramIterations: config.scramIterations,
        connectionLimit: config.connectionLimit ?? 0,
        ownedObjects: owned.kind === "refuse" ? Owned.REFUSE : owned.kind === "drop" ? Owned.DROP : Owned.REASSIGN,
        reassignTo: owned.kind === "reassign_to" ? owned.role : "",
        statementSet: config.statementSet ?? "",
      };
      return { case: "postgres", value };
    }
    case "redis":
      return { case: "redis", value: { rules: [...(record.config as RedisRoleConfig).rules] } };
    case "mysql": {
      const { database, grants, hostPattern, connectionLimit } = record.config as MysqlRoleConfig;
      const value = {
        database: database ?? "",
        grants: grants.map(({ privileges, schema, table }) => ({ privileges: [...privileges], schema, table: table ?? "" })),
        hostPattern,
        connectionLimit: connectionLimit ?? 0,
      };
      return { case: "mysql", value };
    }
  }
}

function postgresRole(value: PostgresRole): PostgresRoleConfig {
  const reassign = value.ownedObjects === Owned.REASSIGN;
  if (reassign !== (value.reassignTo !== "")) throw invalid("role.postgres.reassign_to", "must be set exactly with OWNED_OBJECTS_REASSIGN");
  if (value.memberOf.length === 0 && value.statementSet === "")
    throw invalid("role.postgres.member_of", "must have at least one group, unless statement_set is set");
  return {
    database: value.database,
    memberOf: [...value.memberOf],
    scramIterations: value.scramIterations || DEFAULT_SCRAM_ITERATIONS,
    ...(value.connectionLimit === 0 ? {} : { connectionLimit: value.connectionLimit }),
    ownedObjects: reassign ? { kind: "reassign_to", role: value.reassignTo } : { kind: value.ownedObjects === Owned.DROP ? "drop" : "refuse" },
    ...(value.statementSet === "" ? {} : { statementSet: value.statementSet }),
  };
}

function redisTarget(value: RedisTarget): RedisTargetConfig {
  return { ...serverOf(value), ...(value.allowLogins.length === 0 ? {} : { allowLogins: [...value.allowLogins] }) };
}

interface ServerMessage {
  readonly host: string;
  readonly port: number;
  readonly username: string;
  readonly tlsMode: TlsMode;
  readonly caPem: string;
  readonly maxConnections: number;
}

function serverOf({ host, port, username, tlsMode, caPem, maxConnections }: ServerMessage): MysqlTargetConfig {
  const tls = tlsMode === TlsMode.DISABLE ? ({ mode: "disable" } as const) : ({ mode: "verify-full", ...(caPem === "" ? {} : { caPem }) } as const);
  return { host, port, username, tls, ...(maxConnections === 0 ? {} : { maxConnections }) };
}
