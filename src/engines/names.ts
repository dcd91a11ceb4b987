const MAX_NAME_BYTES = 63;
/** The least that a name may be cut to: prefix of the longest instance, `_`, the longest random part used. */
const LEAST_NAME_BYTES = 32;
const INSTANCE = /^[a-z0-9]{1,16}$/;
const SUFFIX = /^[a-z0-9]{8,24}$/;

/** 1 to 16 of [a-z0-9], without `_`, so that no instance's prefix begins another's; not `w`, since `lh_w_<instance>_<epoch>` is the witness role. */
export function isInstance(value: string): boolean {
  return INSTANCE.test(value) && value !== "w";
}

const TEMPLATE = /^(?:[a-z0-9_]|\{\{(?:role|principal|unix_time)\}\})+$/;

/** `{{role}}`, `{{principal}}`, `{{unix_time}}` and literals of [a-z0-9_]. */
export function isUsernameTemplate(template: string): boolean {
  return template.length <= 128 && TEMPLATE.test(template);
}

export interface LoginNameOptions {
  /** Of the target's names: 63 is PostgreSQL's limit (longer is cut in silence there). */
  readonly maxBytes?: number | undefined;
  /** The readable part; undefined: `{{role}}`. */
  readonly template?: string | undefined;
  /** SPIFFE id of who asks. */
  readonly principal?: string | undefined;
}

/**
 * Name of a leased login, `lh_<instance>_<readable>_<random>` in [a-z0-9_]. The readable part is for people who read pg_stat_activity: by default the role path without `credentials/<engine>/`; it is
 * shortened from the left. `random` (see `newLoginSuffix`) alone makes it unique. Throws a RangeError for an instance, a template or a random part of another form.
 */
export function loginName(
  instance: string,
  rolePath: string,
  random: string,
  { maxBytes = MAX_NAME_BYTES, template, principal = "" }: LoginNameOptions = {},
): string {
  if (!isInstance(instance) || !SUFFIX.test(random) || maxBytes < LEAST_NAME_BYTES) throw new RangeError("malformed instance or random part of a login name");
  if (template !== undefined && !isUsernameTemplate(template)) throw new RangeError("malformed username template");
  const prefix = `lh_${instance}_`;
  const room = maxBytes - prefix.length - 1 - random.length;
  if (room <= 0) return `${prefix}${random}`;
  const role = rolePath.replace(/^credentials\/[^/]+\//, "");
  const values: Readonly<Record<string, string>> = { role, principal: principal.split("/").at(-1) ?? "", unix_time: String(Math.floor(Date.now() / 1000)) };
  const text = template === undefined ? role : template.replaceAll(/\{\{([a-z_]+)\}\}/g, (_, name: string) => values[name]!);
  const readable = text
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "_")
    .slice(-room)
    .replaceAll(/^_+|_+$/g, "");
  return `${prefix}${readable === "" ? "role".slice(0, room) : readable}_${random}`;
}
