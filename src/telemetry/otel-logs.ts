import { type Logger, SeverityNumber } from "@opentelemetry/api";
import type { DestinationStream } from "pino";

const SEVERITY: Readonly<Record<string, SeverityNumber>> = {
  trace: SeverityNumber.TRACE,
  debug: SeverityNumber.DEBUG,
  info: SeverityNumber.INFO,
  warn: SeverityNumber.WARN,
  error: SeverityNumber.ERROR,
  fatal: SeverityNumber.FATAL,
};

/** A pino destination that hands each line to OTel: `msg` is the body, the rest are attributes. What can't be read as a line of ours is dropped here. */
export function otelLogDestination(logger: Logger): DestinationStream {
  return {
    write(line: string): void {
      const record = parse(line);
      if (record === undefined) return;
      const { level, time, msg, ...attributes } = record;
      const severityText = typeof level === "string" ? level : "info";
      logger.emit({
        severityText,
        severityNumber: SEVERITY[severityText] ?? SeverityNumber.INFO,
        timestamp: typeof time === "string" ? new Date(time) : Date.now(),
        body: typeof msg === "string" ? msg : "",
        attributes,
      });
    },
  };
}

/** Writes each line to both. */
export function tee(first: DestinationStream, second: DestinationStream): DestinationStream {
  return {
    write(line: string): void {
      first.write(line);
      second.write(line);
    },
  };
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}
