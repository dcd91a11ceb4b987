import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { AuditService } from "../gen/leasehold/v1/audit_service_pb.ts";
import { CredentialService } from "../gen/leasehold/v1/credential_service_pb.ts";
import { IdentityService } from "../gen/leasehold/v1/identity_service_pb.ts";
import { LeaseService } from "../gen/leasehold/v1/lease_service_pb.ts";
import { OperationService } from "../gen/leasehold/v1/operation_service_pb.ts";
import { OperatorService } from "../gen/leasehold/v1/operator_service_pb.ts";
import { PolicyService } from "../gen/leasehold/v1/policy_service_pb.ts";
import { RotationService } from "../gen/leasehold/v1/rotation_service_pb.ts";
import { SecretService } from "../gen/leasehold/v1/secret_service_pb.ts";
import { WatchService } from "../gen/leasehold/v1/watch_service_pb.ts";
import type { Capability } from "../model/capability.ts";
import type { Root } from "../model/path.ts";

/** Every service of ours. grpc.health and grpc.reflection are not in the table: they are neither authorized nor audited. */
export const SERVICES = {
  SecretService,
  CredentialService,
  LeaseService,
  WatchService,
  PolicyService,
  AuditService,
  OperatorService,
  OperationService,
  IdentityService,
  RotationService,
} as const;

/** What a call is about, and so what it is authorized against. `of` reads the request before it is validated: it must not throw. */
export type Resource<I> =
  /** The caller himself: whoever is authenticated may. */
  | { readonly kind: "self" }
  /** One path of the request, below `root`. */
  | { readonly kind: "path"; readonly root: Root; readonly of: (request: I) => string }
  /** `rotations/X`: needs the capability on that path, and on X as well (finding 15). */
  | { readonly kind: "rotation"; readonly of: (request: I) => string }
  /** Always the same path. */
  | { readonly kind: "constant"; readonly path: string }
  /**
   * `leases/<id>`: authorized by the lease's role path, read first. `ownerMay`: the owner needs no policy (but an explicit deny still
   * wins). Who may not know gets the same denial for a lease that does not exist; who has the capability on `leases/<id>` itself is told.
   */
  | { readonly kind: "lease"; readonly ownerMay: boolean; readonly of: (request: I) => string }
  /** `operations/<id>`: its owner, or the capability on that path. */
  | { readonly kind: "operation"; readonly of: (request: I) => string }
  /**
   * A question about a principal: free about oneself (`of` empty or the caller), else the capability on all of `folder`. `path` only goes
   * into the record.
   */
  | { readonly kind: "subject"; readonly of: (request: I) => string; readonly folder: string; readonly path: (request: I) => string }
  /** Many paths: the handler authorizes or filters each. `scopes`: `""` (all), an exact path, a folder `a/b/` or `a/b/**`; a batch has none: its items fail one by one. */
  | { readonly kind: "set"; readonly scopes: (request: I) => readonly string[] };

/** What a call costs in the principal's token bucket (rate-limit.ts). */
export type RateClass = "read" | "list" | "write" | "issue" | "admin" | "stream";

/**
 * `read`: the pipeline writes the record, durable before the answer. `change`: the committer records success in the change's own
 * transaction (handler sets `call.recorded`); failures, denials and what needed no transaction are recorded by the pipeline.
 */
export type AuditMode = "read" | "change";

export interface MethodRow<I> {
  /** Empty for `self`. */
  readonly capability: Capability | "";
  readonly resource: Resource<I>;
  readonly rate: RateClass;
  readonly audit: AuditMode;
  /** Longest a call may take, in milliseconds, if not the configured one. Streams have no cap. */
  readonly maxMs?: number;
  /** Largest request, if not the usual one. Asked of whoever has the capability anywhere; for others the usual one holds. */
  readonly maxBytes?: number;
  /** False for what is dear to do twice: not repeated when the record shows that this process was behind. */
  readonly repeat?: false;
  /** What policy conditions see as `request.ttl`, in milliseconds; left out or zero: the role's default, asked from `Resources`. */
  readonly ttlMs?: (request: I) => number | undefined;
  /** What policy conditions see as `request.version`. */
  readonly version?: (request: I) => number | undefined;
}

/** The request as conditions see it: effective values. */
export interface RequestFacts {
  readonly ttlMs?: number | undefined;
  /** `CredentialService/IssueCredential` */
  readonly method?: string | undefined;
  readonly version?: number | undefined;
}

type InputOf<M> = M extends { input: infer I extends DescMessage } ? MessageShape<I> : never;

type Table = {
  readonly [S in keyof typeof SERVICES]: {
    readonly [M in keyof (typeof SERVICES)[S]["method"]]: MethodRow<InputOf<(typeof SERVICES)[S]["method"][M]>>;
  };
};

const WAIT_MAX_MS = 310_000;

/** One row for every RPC; a missing one does not compile. Default deny stands behind it: the pipeline serves nothing that has no row. */
export const METHODS = {
  SecretService: {
    putSecret: { capability: "write", resource: { kind: "path", root: "secrets", of: (r) => r.path }, rate: "write", audit: "change" },
    getSecret: {
      capability: "read",
      resource: { kind: "path", root: "secrets", of: (r) => r.path },
      rate: "read",
      audit: "read",
      version: (r) => (r.selector.case === "version" ? Number(r.selector.value) : undefined),
    },
    batchGetSecrets: {
      capability: "read",
      resource: { kind: "set", scopes: () => [] },
      rate: "list",
      audit: "read",
    },
    listSecrets: { capability: "list", resource: { kind: "set", scopes: (r) => [r.prefix] }, rate: "list", audit: "read" },
    describeSecret: { capability: "describe", resource: { kind: "path", root: "secrets", of: (r) => r.path }, rate: "read", audit: "read" },
    listSecretVersions: { capability: "describe", resource: { kind: "path", root: "secrets", of: (r) => r.path }, rate: "list", audit: "read" },
    updateSecretMetadata: { capability: "write", resource: { kind: "path", root: "secrets", of: (r) => r.path }, rate: "write", audit: "change" },
    rollbackSecret: { capability: "write", resource: { kind: "path", root: "secrets", of: (r) => r.path }, rate: "write", audit: "change" },
    deleteSecretVersions: { capability: "delete", resource: { kind: "path", root: "secrets", of: (r) => r.path }, rate: "write", audit: "change" },
    undeleteSecretVersions: { capability: "undelete", resource: { kind: "path", root: "secrets", of: (r) => r.path }, rate: "write", audit: "change" },
    destroySecretVersions: { capability: "destroy", resource: { kind: "path", root: "secrets", of: (r) => r.path }, rate: "write", audit: "change" },
    deleteSecret: { capability: "delete", resource: { kind: "path", root: "secrets", of: (r) => r.path }, rate: "write", audit: "change" },
    restoreSecret: { capability: "undelete", resource: { kind: "path", root: "secrets", of: (r) => r.path }, rate: "write", audit: "change" },
  },
  CredentialService: {
    issueCredential: {
      capability: "issue",
      resource: { kind: "path", root: "credentials", of: (r) => r.path },
      rate: "issue",
      audit: "change",
      ttlMs: (r) => milliseconds(r.ttl),
    },
    getStaticCredential: { capability: "read", resource: { kind: "path", root: "secrets", of: (r) => r.path }, rate: "read", audit: "read" },
  },
  LeaseService: {
    getLease: { capability: "describe", resource: { kind: "lease", ownerMay: true, of: (r) => r.path }, rate: "read", audit: "read" },
    listLeases: { capability: "list", resource: { kind: "set", scopes: (r) => [r.prefix] }, rate: "list", audit: "read" },
    renewLease: {
      capability: "renew",
      resource: { kind: "lease", ownerMay: false, of: (r) => r.path },
      rate: "write",
      audit: "change",
      ttlMs: (r) => milliseconds(r.increment),
    },
    revokeLease: { capability: "revoke", resource: { kind: "lease", ownerMay: true, of: (r) => r.path }, rate: "write", audit: "change" },
    forgetLease: { capability: "operate", resource: { kind: "lease", ownerMay: false, of: (r) => r.path }, rate: "admin", audit: "change" },
    revokeLeases: { capability: "revoke", resource: { kind: "set", scopes: (r) => [r.prefix] }, rate: "admin", audit: "change" },
  },
  WatchService: {
    watch: { capability: "watch", resource: { kind: "set", scopes: (r) => r.paths }, rate: "stream", audit: "read" },
  },
  PolicyService: {
    putPolicy: {
      capability: "policy-write",
      resource: { kind: "path", root: "policies", of: (r) => `policies/${r.policy?.name ?? ""}` },
      rate: "admin",
      audit: "change",
      maxBytes: 4 * 1024 * 1024,
    },
    getPolicy: { capability: "policy-read", resource: { kind: "path", root: "policies", of: (r) => r.path }, rate: "read", audit: "read" },
    listPolicies: { capability: "policy-read", resource: { kind: "set", scopes: () => ["policies/"] }, rate: "list", audit: "read" },
    deletePolicy: { capability: "policy-write", resource: { kind: "path", root: "policies", of: (r) => r.path }, rate: "admin", audit: "change" },
    explainAccess: {
      capability: "policy-read",
      resource: { kind: "subject", of: (r) => r.principal, folder: "policies/", path: (r) => r.path },
      rate: "read",
      audit: "read",
    },
  },
  AuditService: {
    tailAudit: { capability: "audit-read", resource: { kind: "constant", path: "audit/records" }, rate: "stream", audit: "read" },
    verifyAudit: {
      capability: "audit-read",
      resource: { kind: "constant", path: "audit/records" },
      rate: "admin",
      audit: "read",
      maxMs: WAIT_MAX_MS,
      repeat: false,
    },
  },
  OperatorService: {
    putTarget: {
      capability: "operate",
      resource: { kind: "path", root: "targets", of: (r) => `targets/${r.target?.name ?? ""}` },
      rate: "admin",
      audit: "change",
    },
    getTarget: { capability: "operate", resource: { kind: "path", root: "targets", of: (r) => r.path }, rate: "read", audit: "read" },
    listTargets: { capability: "operate", resource: { kind: "set", scopes: () => ["targets/"] }, rate: "list", audit: "read" },
    deleteTarget: { capability: "operate", resource: { kind: "path", root: "targets", of: (r) => r.path }, rate: "admin", audit: "change" },
    rotateTargetLogin: { capability: "operate", resource: { kind: "path", root: "targets", of: (r) => r.path }, rate: "admin", audit: "change" },
    scanTarget: { capability: "operate", resource: { kind: "path", root: "targets", of: (r) => r.path }, rate: "admin", audit: "change" },
    listFindings: { capability: "operate", resource: { kind: "set", scopes: () => ["targets/"] }, rate: "list", audit: "read" },
    listQuarantines: { capability: "operate", resource: { kind: "set", scopes: () => ["targets/"] }, rate: "list", audit: "read" },
    releaseQuarantine: { capability: "operate", resource: { kind: "path", root: "targets", of: (r) => r.path }, rate: "admin", audit: "change" },
    testTarget: { capability: "operate", resource: { kind: "path", root: "targets", of: (r) => r.path }, rate: "admin", audit: "change" },
    putRole: {
      capability: "operate",
      resource: { kind: "path", root: "credentials", of: (r) => r.role?.path ?? "" },
      rate: "admin",
      audit: "change",
    },
    getRole: { capability: "operate", resource: { kind: "path", root: "credentials", of: (r) => r.path }, rate: "read", audit: "read" },
    listRoles: { capability: "operate", resource: { kind: "set", scopes: (r) => [r.prefix] }, rate: "list", audit: "read" },
    deleteRole: { capability: "operate", resource: { kind: "path", root: "credentials", of: (r) => r.path }, rate: "admin", audit: "change" },
    rotateKeyring: { capability: "operate", resource: { kind: "constant", path: "sys/keyring" }, rate: "admin", audit: "change" },
    rewrapKeyring: { capability: "operate", resource: { kind: "constant", path: "sys/keyring" }, rate: "admin", audit: "change" },
    listKeys: { capability: "operate", resource: { kind: "constant", path: "sys/keyring" }, rate: "list", audit: "read" },
    getServerInfo: { capability: "operate", resource: { kind: "constant", path: "sys/server" }, rate: "read", audit: "read" },
  },
  OperationService: {
    getOperation: { capability: "operate", resource: { kind: "operation", of: (r) => r.path }, rate: "read", audit: "read" },
    listOperations: { capability: "operate", resource: { kind: "set", scopes: () => ["operations/"] }, rate: "list", audit: "read" },
    cancelOperation: { capability: "operate", resource: { kind: "operation", of: (r) => r.path }, rate: "admin", audit: "change" },
    waitOperation: { capability: "operate", resource: { kind: "operation", of: (r) => r.path }, rate: "read", audit: "read", maxMs: WAIT_MAX_MS },
  },
  RotationService: {
    putRotation: { capability: "rotate", resource: { kind: "rotation", of: (r) => r.rotation?.path ?? "" }, rate: "admin", audit: "change" },
    getRotation: { capability: "describe", resource: { kind: "rotation", of: (r) => r.path }, rate: "read", audit: "read" },
    listRotations: { capability: "list", resource: { kind: "set", scopes: (r) => [r.prefix === "" ? "rotations/" : r.prefix] }, rate: "list", audit: "read" },
    deleteRotation: { capability: "rotate", resource: { kind: "rotation", of: (r) => r.path }, rate: "admin", audit: "change" },
    rotateNow: { capability: "rotate", resource: { kind: "rotation", of: (r) => r.path }, rate: "admin", audit: "change" },
    abortRotation: { capability: "rotate", resource: { kind: "rotation", of: (r) => r.path }, rate: "admin", audit: "change" },
    resumeRotation: { capability: "rotate", resource: { kind: "rotation", of: (r) => r.path }, rate: "admin", audit: "change" },
  },
  IdentityService: {
    whoAmI: { capability: "", resource: { kind: "self" }, rate: "read", audit: "read" },
  },
} as const satisfies Table;

function milliseconds(d: { seconds: bigint; nanos: number } | undefined): number | undefined {
  return d === undefined ? undefined : Number(d.seconds) * 1000 + d.nanos / 1e6;
}
