/**
 * Literals for the bootstrap script, which a DBA may run by hand and so can't use parameters; everything else does. The script sets
 * standard_conforming_strings, hence only the quote needs doubling. Throws a RangeError for NUL, which no PostgreSQL text can hold.
 */
export function quoteLiteral(value: string): string {
  if (value.includes("\0") || !value.isWellFormed()) throw new RangeError("a literal can't hold NUL or half a character");
  return `'${value.replaceAll("'", "''")}'`;
}

export function quoteArray(values: readonly string[]): string {
  return `ARRAY[${values.map(quoteLiteral).join(", ")}]::text[]`;
}
