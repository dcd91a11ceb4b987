/**
 * Counters, gauges and histograms as plain cells: an update is an addition (0.02 µs; an OTel histogram costs 0.76). Rendering and export
 * read them (src/telemetry). Names and label values must be constants or come from a small closed set: never a path or a principal.
 */
export type Labels = Readonly<Record<string, string>>;

export interface Counter {
  add(n?: number): void;
  readonly value: number;
}

export interface Gauge {
  set(value: number): void;
  add(n: number): void;
  readonly value: number;
}

/** Cumulative since the start; `counts[i]` is the number of observations at most `bounds[i]` and above the bound before; the last one is the rest. */
export interface Histogram {
  observe(value: number): void;
  readonly bounds: readonly number[];
  readonly counts: Float64Array;
  readonly sum: number;
  readonly count: number;
}

export type MetricKind = "counter" | "gauge" | "histogram";

export interface Sample<C> {
  readonly labels: Labels;
  readonly cell: C;
}

export type Family = { readonly name: string; readonly help: string } & (
  | { readonly kind: "counter"; readonly samples: readonly Sample<Counter>[] }
  | { readonly kind: "gauge"; readonly samples: readonly Sample<{ readonly value: number }>[] }
  | { readonly kind: "histogram"; readonly samples: readonly Sample<Histogram>[] }
);

/** Seconds: from cache hits to slow targets. */
export const SECONDS: readonly number[] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

class Cell implements Counter, Gauge {
  value = 0;
  add(n = 1): void {
    this.value += n;
  }
  set(value: number): void {
    this.value = value;
  }
}

class HistogramCell implements Histogram {
  readonly bounds: readonly number[];
  readonly counts: Float64Array;
  sum = 0;
  count = 0;
  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = new Float64Array(bounds.length + 1);
  }
  observe(value: number): void {
    let i = 0;
    while (i < this.bounds.length && value > this.bounds[i]!) i++;
    this.counts[i]!++;
    this.sum += value;
    this.count++;
  }
}

interface Entry {
  readonly name: string;
  readonly help: string;
  readonly kind: MetricKind;
  readonly samples: Map<string, Sample<Cell | HistogramCell | { readonly value: number }>>;
}

/** All metrics of a process. Asking twice for the same name and labels gives the same cell; another kind under a known name throws. */
export class Metrics {
  readonly #entries = new Map<string, Entry>();

  counter(name: string, help: string, labels: Labels = {}): Counter {
    return this.#cell(name, help, "counter", labels, () => new Cell()) as Counter;
  }

  gauge(name: string, help: string, labels: Labels = {}): Gauge {
    return this.#cell(name, help, "gauge", labels, () => new Cell()) as Gauge;
  }

  /** A gauge that is read when asked for. `read` must be cheap and must not throw. */
  observe(name: string, help: string, read: () => number, labels: Labels = {}): void {
    this.#cell(name, help, "gauge", labels, () => ({
      get value(): number {
        return read();
      },
    }));
  }

  histogram(name: string, help: string, bounds: readonly number[], labels: Labels = {}): Histogram {
    return this.#cell(name, help, "histogram", labels, () => new HistogramCell(bounds)) as Histogram;
  }

  /** In the order of first use. */
  *families(): Iterable<Family> {
    for (const { name, help, kind, samples } of this.#entries.values()) yield { name, help, kind, samples: [...samples.values()] } as Family;
  }

  #cell(name: string, help: string, kind: MetricKind, labels: Labels, make: () => Cell | HistogramCell | { readonly value: number }): unknown {
    let entry = this.#entries.get(name);
    if (entry === undefined) this.#entries.set(name, (entry = { name, help, kind, samples: new Map() }));
    if (entry.kind !== kind) throw new Error(`metric ${name} is a ${entry.kind}, not a ${kind}`);
    const key = JSON.stringify(Object.entries(labels).toSorted());
    let sample = entry.samples.get(key);
    if (sample === undefined) entry.samples.set(key, (sample = { labels, cell: make() }));
    return sample.cell;
  }
}
