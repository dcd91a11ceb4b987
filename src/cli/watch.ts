import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import { status } from "@grpc/grpc-js";
import { type Event, EventSchema, EventType, WatchService } from "../gen/leasehold/v1/watch_service_pb.ts";
import { CallError } from "../client/errors.ts";
import { type Context, withClient } from "./context.ts";
import { interruption, UsageError } from "./exit.ts";
import { type Format, jsonOf, nameOf, plainData, printLine, printStreamed, when } from "./output.ts";

interface WatchOptions {
  readonly snapshot: boolean;
  readonly includeValues: boolean;
  readonly type?: string[];
  readonly resumeToken?: string;
  readonly bookmarks: boolean;
}

const RECONNECT_MS = 500;
const MAX_RECONNECT_MS = 5000;

export function addWatchCommand(program: Command): void {
  program
    .command("watch <paths...>")
    .description("print changes as they are committed: exact paths, or folders such as 'secrets/**'")
    .option("--snapshot", "first what is there now", false)
    .option("--include-values", "with the data of secrets; each is an audited read", false)
    .option("--type <type...>", "only these, such as secret_version_created or lease_expired")
    .option("--resume-token <token>", "go on after this point")
    .option("--bookmarks", "also how far the watch has come, when nothing happens", false)
    .action((paths: string[], options: WatchOptions, command: Command) => withClient(command, (context) => follow(context, paths, options)));
}

/** Goes on by the resume token whenever the stream breaks off, until a signal or an error that a new stream can't mend. */
async function follow({ client, format }: Context, paths: string[], options: WatchOptions): Promise<void> {
  const stop = interruption();
  const types = (options.type ?? []).map(typeOf);
  let token = options.resumeToken ?? "";
  let [begun, told] = [false, false];
  for (let wait = RECONNECT_MS; !stop.signal.aborted;) {
    try {
      const request = { paths, types, resumeToken: token, snapshot: options.snapshot && token === "", includeValues: options.includeValues };
      for await (const message of client.stream(WatchService.method.watch, request, stop.signal)) {
        for (const event of message.events) print(event, format);
        if (options.bookmarks && message.bookmark) {
          if (format === "table") printLine([`-- at revision ${message.revision}`, message.resumeToken]);
          else printStreamed({ bookmark: String(message.revision), resumeToken: message.resumeToken }, format);
        }
        if (message.resumeToken !== "") token = message.resumeToken;
        wait = RECONNECT_MS;
        [begun, told] = [true, false];
      }
    } catch (error) {
      // A broker that was never there is not a broken connection.
      if (!(error instanceof CallError) || !isPassing(error) || (!begun && error.reason === "")) throw error;
      if (!told) console.error(`the watch broke off (${error.reason || "no connection"}); it goes on by itself`);
      told = true;
      token = error.metadata["resume_token"] || token;
    }
    stop.signal.throwIfAborted();
    await sleep(wait, undefined, { signal: stop.signal }).catch(() => {});
    wait = Math.min(wait * 2, MAX_RECONNECT_MS);
  }
  stop.signal.throwIfAborted();
}

function isPassing(error: CallError): boolean {
  return error.code === status.UNAVAILABLE || error.reason === "WATCH_TOO_SLOW";
}

function print(event: Event, format: Format): void {
  if (format !== "table") {
    const data = Object.keys(event.data).length === 0 ? {} : { data: plainData(event.data) };
    printStreamed({ ...(jsonOf(EventSchema, { ...event, data: {} }) as object), ...data }, format);
    return;
  }
  const about = [
    event.version === 0n ? "" : `version ${event.version}`,
    event.leasePath,
    event.expireTime === undefined ? "" : `until ${when(event.expireTime)}`,
    event.snapshot ? "(snapshot)" : "",
  ];
  const values = Object.entries(plainData(event.data)).map(([key, value]) => `${key}=${typeof value === "string" ? value : "(bytes)"}`);
  printLine([when(event.time), String(event.revision).padStart(6), nameOf(EventType, event.type), event.path, ...about, ...values]);
}

function typeOf(text: string): EventType {
  const type = EventType[text.toUpperCase() as keyof typeof EventType];
  if (type === undefined) throw new UsageError("--type must be an event's type, such as secret_version_created");
  return type;
}
