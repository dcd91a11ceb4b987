import { parsePath } from "../model/path.ts";

const ROOT = "rotations/";

/** The secret of a rotation's path, `rotations/secrets/a` → `secrets/a`. Throws PATH_INVALID for what is not below `rotations/secrets/`. */
export function secretOfRotation(path: string): string {
  return parsePath(path.startsWith(ROOT) ? path.slice(ROOT.length) : "", "secrets");
}
