import { pino, type DestinationStream, type Logger } from "pino";

export type Log = Logger;

/**
 * JSON lines on `destination` (standard error by default). Errors are logged by type, reason, message and stack; never pass a request or
 * a response: log names, not values.
 */
export function createLog(level: string, destination?: DestinationStream): Log {
  return pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) } },
    destination ?? pino.destination({ dest: 2, sync: true }),
  );
}
