import type { EngineAbilities } from "../engine.ts";

/** MySQL is sent the password itself (MariaDB its hash): the weaker of the two is declared. */
export const ABILITIES = { serverExpiry: false, sessionKill: true, fencing: true, hashedPassword: false, enumerable: true } as const satisfies EngineAbilities;

/** MySQL's limit; MariaDB's is 80. */
export const MAX_NAME_BYTES = 32;
