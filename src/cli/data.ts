import { readFileSync } from "node:fs";
import { UsageError } from "./exit.ts";

export type PlainValue = { kind: { case: "text"; value: string } } | { kind: { case: "bytes"; value: Uint8Array } };

/**
 * `key=value`, `key=@file`, `key=-` (standard input, once). What is not UTF-8 goes as bytes. A file's last newline is kept: it may be part of the secret.
 * Throws UsageError; the text never quotes a value.
 */
export function parseData(pairs: readonly string[], readStdin: () => Uint8Array): Record<string, PlainValue> {
  const data: Record<string, PlainValue> = {};
  let stdinUsed = false;
  for (const [i, pair] of pairs.entries()) {
    const at = pair.indexOf("=");
    if (at < 1) throw new UsageError(`argument ${i + 1} of the data must be key=value, key=@file or key=-`);
    const key = pair.slice(0, at);
    const given = pair.slice(at + 1);
    if (data[key] !== undefined) throw new UsageError(`${key} is given twice`);
    if (given === "-") {
      if (stdinUsed) throw new UsageError("standard input can be read once only");
      stdinUsed = true;
      data[key] = valueOf(readStdin());
    } else if (given.startsWith("@")) data[key] = valueOf(readGiven(given.slice(1)));
    else data[key] = { kind: { case: "text", value: given } };
  }
  return data;
}

function readGiven(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new UsageError(`${path} can't be read (${(error as NodeJS.ErrnoException).code ?? "unknown"})`);
  }
}

function valueOf(bytes: Uint8Array): PlainValue {
  try {
    return { kind: { case: "text", value: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) } };
  } catch {
    return { kind: { case: "bytes", value: new Uint8Array(bytes) } };
  }
}
