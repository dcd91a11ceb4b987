const MAX_NAME_BYTES = 63;
/** The least that a name may be cut to: prefix of the longest instance, `_`, the longest random part used. */
const LEAST_NAME_BYTES = 32;
const INSTANCE = /^[a-z0-9]{1,16}$/;
const SUFFIX = /^[a-z0-9]{8,24}$/;

/** 1 to 16 of [a-z0-9], without `_`, so that no instance's prefix begins another's; not `w`, since `lh_w_<instance>_<epoch>` is the witness role. */
export function isInstance(value: string): boolean {
  return INSTANCE.test(value) && value !== "w";
}

/**
 * Name of a leased login, `lh_<instance>_<role>_<random>` in [a-z0-9_], at most `maxBytes` (63 is PostgreSQL's limit; longer is cut in silence there).
 * `<role>` is the role path without `credentials/<engine>/`, shortened from the left, for people who read pg_stat_activity.
 * `random` (see `newLoginSuffix`) alone makes it unique. Throws a RangeError for an instance or a random part of another form.
 */
export function loginName(instance: string, rolePath: string, random: string, maxBytes = MAX_NAME_BYTES): string {
  if (!isInstance(instance) || !SUFFIX.test(random) || maxBytes < LEAST_NAME_BYTES) throw new RangeError("malformed instance or random part of a login name");
  const prefix = `lh_${instance}_`;
  const room = maxBytes - prefix.length - 1 - random.length;
  if (room <= 0) return `${prefix}${random}`;
  const readable = rolePath
    .replace(/^credentials\/[^/]+\//, "")
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "_")
    .slice(-room)
    .replaceAll(/^_+|_+$/g, "");
  return `${prefix}${readable === "" ? "role".slice(0, room) : readable}_${random}`;
}
