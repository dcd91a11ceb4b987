import { createHash } from "node:crypto";
import type { Sensitive } from "../../base/sensitive.ts";
import { quoteAccount, quoteGrantedSchema, quoteIdentifier, quoteLiteral } from "./quote.ts";
import type { MysqlGrant, MysqlRoleConfig } from "./config.ts";
import type { Server } from "./server.ts";
import type { Session } from "./sessions.ts";

/** An account of the login's name; its host part is not in the ledger, and need not be. */
export interface Account {
  readonly host: string;
  readonly oid: string;
  readonly locked: boolean;
}

/** Every account of that name. Needs SELECT on mysql.global_priv (MariaDB) or mysql.user (MySQL). */
export async function accountsOf(session: Session, { mariadb }: Server, name: string): Promise<Account[]> {
  const rows = await session.rows<{ host: string; verifier: string; locked: number }>(
    mariadb
      ? `SELECT Host AS host, COALESCE(JSON_VALUE(Priv, '$.authentication_string'), '') AS verifier, JSON_VALUE(Priv, '$.account_locked') = '1' OR JSON_VALUE(Priv, '$.account_locked') = 'true' AS locked
         FROM mysql.global_priv WHERE User = ${quoteLiteral(name)}`
      : `SELECT host, authentication_string AS verifier, account_locked = 'Y' AS locked FROM mysql.user WHERE user = ${quoteLiteral(name)}`,
  );
  return rows.map(({ host, verifier, locked }) => ({ host, oid: oidOf(verifier), locked: locked === 1 }));
}

/** Names of accounts that begin with `prefix`, of [a-z0-9_], in order and after `after`. */
export async function accountsUnder(
  session: Session,
  { mariadb }: Server,
  prefix: string,
  after: string,
  limit: number,
): Promise<{ name: string; oid: string }[]> {
  const [table, verifier] = mariadb
    ? ["mysql.global_priv", "COALESCE(JSON_VALUE(Priv, '$.authentication_string'), '')"]
    : ["mysql.user", "authentication_string"];
  // A binary comparison: the order is that of the page's cursor, and `_` in a pattern would stand for any character.
  const rows = await session.rows<{ name: string; verifier: string }>(
    `SELECT User AS name, MIN(${verifier}) AS verifier FROM ${table}
     WHERE LEFT(User, ${prefix.length}) = ${quoteLiteral(prefix)} AND BINARY User > ${quoteLiteral(after)} GROUP BY User ORDER BY BINARY User LIMIT ${limit}`,
  );
  return rows.map((row) => ({ name: row.name, oid: oidOf(row.verifier) }));
}

/** What tells an account from another made later under the same name, as an oid does on PostgreSQL: a digest of its verifier. */
function oidOf(verifier: string): string {
  return createHash("sha256").update(`leasehold:${verifier}`).digest("hex").slice(0, 32);
}

/**
 * Makes the account locked, gives it its rights, and says how to let it in; so a failure between leaves nothing that works. On MariaDB the
 * password goes as the hash that the server keeps, SHA-1 of SHA-1: 190 random bits can't be guessed from it. MySQL is sent the password itself,
 * since of its own hash nothing shorter than SHA-crypt is left from version 9 on; it keeps it out of its logs.
 */
export function creation(
  { mariadb }: Server,
  name: string,
  password: Sensitive,
  role: MysqlRoleConfig,
): { readonly make: readonly string[]; readonly enable: string } {
  const account = quoteAccount(name, role.hostPattern);
  const identified = mariadb
    ? `IDENTIFIED VIA mysql_native_password USING ${quoteLiteral(nativeHash(password))}`
    : `IDENTIFIED BY ${quoteLiteral(password.revealText())}`;
  const limit = role.connectionLimit === undefined ? "" : ` WITH MAX_USER_CONNECTIONS ${role.connectionLimit}`;
  return {
    make: [
      `CREATE USER ${account} ${identified}${limit} ACCOUNT LOCK`,
      ...role.grants.map((grant) => `GRANT ${grant.privileges.join(", ")} ON ${objectOf(grant)} TO ${account}`),
    ],
    enable: `ALTER USER ${account} ACCOUNT UNLOCK`,
  };
}

function nativeHash(password: Sensitive): string {
  const inner = createHash("sha1").update(password.reveal()).digest();
  return `*${createHash("sha1").update(inner).digest("hex").toUpperCase()}`;
}

function objectOf({ schema, table }: MysqlGrant): string {
  return table === undefined ? `${quoteGrantedSchema(schema)}.*` : `${quoteIdentifier(schema)}.${quoteIdentifier(table)}`;
}
