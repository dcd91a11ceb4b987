/** What a bench answers. One line of `--json` is `{ name, value, unit, floor, ratio }`; `floor` and `ratio` are null there where there is nothing to compare with. */
export interface Result {
  readonly value: number;
  readonly unit: string;
  readonly floor?: number;
  readonly ratio?: number;
  /** More figures, for people. */
  readonly detail?: Readonly<Record<string, unknown>>;
}

export interface Bench {
  readonly name: string;
  /** What is reached for, as the issue says it. */
  readonly reach: string;
  run(): Promise<Result>;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
