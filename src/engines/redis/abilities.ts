import type { EngineAbilities } from "../engine.ts";

export const ABILITIES = { serverExpiry: false, sessionKill: true, fencing: true, hashedPassword: true, enumerable: true } as const satisfies EngineAbilities;
