/** CREATE USER and GRANT take no parameters. Sessions set sql_mode, so that a quote is a quote; what could mean anything else is refused. */

/** Throws a RangeError for a backslash, a control character, or half a character. */
export function quoteLiteral(value: string): string {
  // oxlint-disable-next-line no-control-regex -- they are what is refused
  if (/[\\\u0000-\u001f\u007f]/.test(value) || !value.isWellFormed()) throw new RangeError("a literal can't hold a backslash or a control character");
  return `'${value.replaceAll("'", "''")}'`;
}

/** Throws a RangeError for what is no identifier: empty, above 64 characters, with control characters. */
export function quoteIdentifier(value: string): string {
  // oxlint-disable-next-line no-control-regex
  if (value.length === 0 || value.length > 64 || /[\u0000-\u001f\u007f]/.test(value) || !value.isWellFormed()) throw new RangeError("no identifier");
  return `\`${value.replaceAll("`", "``")}\``;
}

/** A schema in `GRANT ... ON schema.*`, where `_` and `%` would else match other schemas too. */
export function quoteGrantedSchema(value: string): string {
  return quoteIdentifier(value).replaceAll(/[_%\\]/g, String.raw`\$&`);
}

export function quoteAccount(name: string, host: string): string {
  return `${quoteLiteral(name)}@${quoteLiteral(host)}`;
}
