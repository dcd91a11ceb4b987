import {
  DeleteRoleRequestSchema,
  DeleteTargetRequestSchema,
  type GetServerInfoResponse,
  type OperatorService,
  PutRoleRequestSchema,
  PutTargetRequestSchema,
  RewrapKeyringRequestSchema,
  RotateKeyringRequestSchema,
  RotateTargetLoginRequestSchema,
} from "../../gen/leasehold/v1/operator_service_pb.ts";
import { invalid, LeaseholdError } from "../../base/errors.ts";
import type { Catalog } from "../../catalog/catalog.ts";
import type { OpenTargets } from "../../catalog/open-targets.ts";
import type { LoginRotator } from "../../catalog/rotate-login.ts";
import type { CatalogWriter, Write } from "../../catalog/write.ts";
import type { Keyring } from "../../crypto/keyring.ts";
import { rotateKeyring } from "../../crypto/rotate.ts";
import type { StaticLogin } from "../../engines/static-login.ts";
import type { TargetGate } from "../../leases/gate.ts";
import type { LeaseRevoker } from "../../leases/revoke.ts";
import { parsePrefix } from "../../model/path.ts";
import type { RoleRecord } from "../../model/target.ts";
import type { Operations } from "../../operations/operations.ts";
import type { Committer } from "../../store/command.ts";
import type { Db } from "../../store/db.ts";
import { seedRecords, seedUses } from "../../store/keyring.ts";
import { liveLeasesOf } from "../../store/reconcile.ts";
import type { Authorized } from "../call.ts";
import { timestamp } from "../convert.ts";
import type { Handlers } from "../definition.ts";
import type { PageTokens } from "../page-token.ts";
import type { RequestKeys } from "../request-key.ts";
import { roleInput, roleMessage, targetInput, targetMessage } from "./catalog-messages.ts";
import { operationMessage } from "./operations.ts";
import { reconcileHandlers } from "./reconcile.ts";
import { testTargetNow } from "./target-test.ts";

export interface OperatorServiceDeps {
  readonly db: Db;
  readonly catalog: Catalog;
  readonly writer: CatalogWriter;
  readonly targets: OpenTargets;
  readonly keyring: Keyring;
  readonly committer: Committer;
  readonly operations: Operations;
  readonly pages: PageTokens;
  readonly requests: RequestKeys;
  readonly gate: TargetGate;
  readonly revoker: LeaseRevoker;
  readonly logins: LoginRotator;
  /** Those of a target, by its name, whose passwords rotations set. */
  readonly loginsOf: (target: string) => Promise<readonly StaticLogin[]>;
  /** What this replica is and how it stands. */
  readonly info: () => Omit<GetServerInfoResponse, "$typeName" | "$unknown">;
}

const FIRST_PAGE = 100;

export function operatorService(deps: OperatorServiceDeps): Handlers<typeof OperatorService> {
  const { catalog, writer, requests } = deps;
  const targetName = (path: string): string => path.slice("targets/".length);

  return {
    ...reconcileHandlers(deps),

    async putTarget(request, call) {
      const input = targetInput(request.target!);
      const written = await writer.putTarget(input, writeOf(call, request, requests.of(PutTargetRequestSchema, request)));
      call.recorded = written.recorded;
      const stored = catalog.target(input.name);
      return { ...(stored === undefined ? {} : { target: targetMessage(stored) }), revision: BigInt(written.revision) };
    },

    getTarget(_request, call) {
      const target = catalog.target(targetName(call.path));
      if (target === undefined) throw new LeaseholdError("TARGET_NOT_FOUND");
      return { target: targetMessage(target) };
    },

    listTargets(request, call) {
      const visible = catalog.targets().filter((target) => call.allows(`targets/${target.name}`));
      const page = pageOf(deps.pages, "ListTargets", {}, call, request, visible, (target) => target.name);
      return { targets: page.items.map(targetMessage), nextPageToken: page.token };
    },

    async deleteTarget(request, call) {
      if (request.forgetLeases) await forgetLeases(deps, targetName(call.path), call);
      const written = await writer.deleteTarget(targetName(call.path), writeOf(call, {}, requests.of(DeleteTargetRequestSchema, request)));
      call.recorded = written.recorded;
      return { revision: BigInt(written.revision) };
    },

    async rotateTargetLogin(request, call) {
      const rotated = await deps.logins.rotate(targetName(call.path), call.actor(), requests.of(RotateTargetLoginRequestSchema, request));
      call.recorded = rotated.recorded;
      return { login: rotated.login, revision: BigInt(rotated.revision) };
    },

    async testTarget(request, call) {
      const target = catalog.target(targetName(call.path));
      if (target === undefined) throw new LeaseholdError("TARGET_NOT_FOUND");
      let role: RoleRecord | undefined;
      if (request.rolePath !== "") {
        call.authorizeItem(request.rolePath);
        role = catalog.role(request.rolePath);
        if (role === undefined || role.targetUid !== target.uid) throw new LeaseholdError("ROLE_NOT_FOUND");
      }
      const open = await deps.targets.open(target.uid);
      const checks = await testTargetNow(open, role?.config, await deps.loginsOf(target.name));
      return { ok: checks.every((check) => check.ok), checks: checks.map((check) => ({ ...check })) };
    },

    async putRole(request, call) {
      const input = roleInput(request.role!);
      const written = await writer.putRole(input, writeOf(call, request, requests.of(PutRoleRequestSchema, request)));
      call.recorded = written.recorded;
      const stored = catalog.role(input.path);
      return { ...(stored === undefined ? {} : { role: roleMessage(stored) }), revision: BigInt(written.revision) };
    },

    getRole(_request, call) {
      const role = catalog.role(call.path);
      if (role === undefined) throw new LeaseholdError("ROLE_NOT_FOUND");
      return { role: roleMessage(role) };
    },

    listRoles(request, call) {
      const prefix = request.prefix === "" ? "credentials/" : parsePrefix(request.prefix);
      const visible = catalog.roles().filter((role) => role.path.startsWith(prefix) && call.allows(role.path));
      const page = pageOf(deps.pages, "ListRoles", { prefix: request.prefix }, call, request, visible, (role) => role.path);
      return { roles: page.items.map(roleMessage), nextPageToken: page.token };
    },

    async deleteRole(request, call) {
      const written = await writer.deleteRole(call.path, writeOf(call, {}, requests.of(DeleteRoleRequestSchema, request)));
      call.recorded = written.recorded;
      return { revision: BigInt(written.revision) };
    },

    async rotateKeyring(request, call) {
      const rotated = await rotateKeyring(deps.keyring, deps.committer, call.actor(), requests.of(RotateKeyringRequestSchema, request));
      call.recorded = rotated.recorded;
      return { keyId: rotated.keyId, revision: BigInt(rotated.revision) };
    },

    async rewrapKeyring(request, call) {
      const started = await deps.operations.start("rewrap", "sys/keyring", {}, call.actor(), requests.of(RewrapKeyringRequestSchema, request));
      call.recorded = started.recorded;
      return { operation: operationMessage(started.operation) };
    },

    async listKeys() {
      const [seeds, uses] = await Promise.all([seedRecords(deps.db).list(), seedUses(deps.db)]);
      const keys = seeds.map((seed) => ({
        keyId: seed.id,
        active: seed.id === deps.keyring.activeId,
        provider: seed.provider,
        kmsKeyId: seed.kmsKeyId,
        createTime: timestamp(seed.createdAt),
        uses: BigInt(uses.get(seed.id) ?? 0),
      }));
      return { keys };
    },

    getServerInfo: () => deps.info(),
  };
}

function writeOf(call: Authorized, request: { readonly etag?: string; readonly dryRun?: boolean }, key: Write["request"]): Write {
  return { etag: request.etag ?? "", dryRun: request.dryRun ?? false, actor: call.actor(), request: key };
}

/** A page of what is in memory and in key order. */
export function pageOf<T>(
  pages: PageTokens,
  method: string,
  filter: Readonly<Record<string, string>>,
  call: Authorized,
  request: { readonly pageSize: number; readonly pageToken: string },
  all: readonly T[],
  keyOf: (item: T) => string,
): { readonly items: readonly T[]; readonly token: string } {
  const after = pages.open(method, filter, call.principal, request.pageToken);
  const from = after === undefined ? 0 : all.findIndex((item) => keyOf(item) > after);
  if (from === -1) return { items: [], token: "" };
  const size = request.pageSize || FIRST_PAGE;
  if (size < 1) throw invalid("page_size", "must be 0 or more");
  const items = all.slice(from, from + size);
  const more = from + size < all.length;
  return { items, token: more ? pages.seal(method, filter, call.principal, keyOf(items.at(-1)!)) : "" };
}

const FORGET_AT_ONCE = 200;

/** Every live lease of a target that is gone, each as an act of its own; roles first, so that no new one comes. Throws IN_USE. */
async function forgetLeases({ db, catalog, revoker }: OperatorServiceDeps, name: string, call: Authorized): Promise<void> {
  const target = catalog.target(name) ?? (await catalog.refreshTarget(name));
  if (target === undefined) throw new LeaseholdError("TARGET_NOT_FOUND");
  if (catalog.roles().some((role) => role.targetUid === target.uid)) throw new LeaseholdError("IN_USE", "roles", { metadata: { by: "role" } });
  const actor = { ...call.actor(), action: "lease.forget", cause: "target deleted" };
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- until none is left
    const leases = await liveLeasesOf(db, target.uid, FORGET_AT_ONCE);
    if (leases.length === 0) return;
    // oxlint-disable-next-line no-await-in-loop
    await Promise.all(leases.map((lease) => revoker.forget(lease, true, actor, undefined)));
  }
}
