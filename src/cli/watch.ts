import type { Command } from "commander";
import { EventSchema, EventType } from "../gen/leasehold/v1/watch_service_pb.ts";
import { follow } from "../client/follow.ts";
import type { WatchEvent } from "../client/watch-event.ts";
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

export function addWatchCommand(program: Command): void {
  program
    .command("watch <paths...>")
    .description("print changes as they are committed: exact paths, or folders such as 'secrets/**'")
    .option("--snapshot", "first what is there now", false)
    .option("--include-values", "with the data of secrets; each is an audited read", false)
    .option("--type <type...>", "only these, such as secret_version_created or lease_expired")
    .option("--resume-token <token>", "go on after this point")
    .option("--bookmarks", "also how far the watch has come, when nothing happens", false)
    .action((paths: string[], options: WatchOptions, command: Command) => withClient(command, (context) => watch(context, paths, options)));
}

/** Goes on over broken connections and restarts of the broker, until a signal or an error that a new stream can't mend. */
async function watch({ client, format }: Context, paths: string[], options: WatchOptions): Promise<void> {
  const stop = interruption();
  if (options.snapshot && options.resumeToken !== undefined) throw new UsageError("--snapshot begins anew and --resume-token goes on: give one of them");
  let told = false;
  const followed = follow(client, {
    paths,
    types: (options.type ?? []).map(typeOf),
    includeValues: options.includeValues,
    snapshot: options.snapshot,
    resumeToken: options.resumeToken,
    signal: stop.signal,
    // A broker that was never there is not a broken connection.
    failIfUnreachable: true,
    onInterrupted: (error) => {
      if (!told) console.error(`the watch broke off (${error?.reason || "no connection"}); it goes on by itself`);
      told = true;
    },
  });
  for await (const each of followed) {
    told = false;
    if (each.kind === "event") print(each.event, format);
    else if (each.kind === "bookmark" && options.bookmarks) {
      if (format === "table") printLine([`-- at revision ${each.revision}`, each.resumeToken]);
      else printStreamed({ bookmark: String(each.revision), resumeToken: each.resumeToken }, format);
    }
  }
  stop.signal.throwIfAborted();
}

function print({ message: event, difference }: WatchEvent, format: Format): void {
  if (format !== "table") {
    const data = Object.keys(event.data).length === 0 ? {} : { data: plainData(event.data) };
    printStreamed({ ...(jsonOf(EventSchema, { ...event, data: {} }) as object), ...data, ...(difference === undefined ? {} : { difference }) }, format);
    return;
  }
  const about = [
    event.version === 0n ? "" : `version ${event.version}`,
    event.leasePath,
    event.expireTime === undefined ? "" : `until ${when(event.expireTime)}`,
    difference === undefined ? (event.snapshot ? "(snapshot)" : "") : `(${difference} meanwhile)`,
  ];
  const values = Object.entries(plainData(event.data)).map(([key, value]) => `${key}=${typeof value === "string" ? value : "(bytes)"}`);
  printLine([when(event.time), String(event.revision).padStart(6), nameOf(EventType, event.type), event.path, ...about, ...values]);
}

function typeOf(text: string): EventType {
  const type = EventType[text.toUpperCase() as keyof typeof EventType];
  if (type === undefined) throw new UsageError("--type must be an event's type, such as secret_version_created");
  return type;
}
