import type { WatchService } from "../../gen/leasehold/v1/watch_service_pb.ts";
import { invalid } from "../../base/errors.ts";
import { parseScope } from "../../model/path.ts";
import type { SecretReader } from "../../secrets/read.ts";
import type { Db } from "../../store/db.ts";
import type { Feed } from "../../watch/feed.ts";
import type { Hub } from "../../watch/hub.ts";
import { Watch } from "../../watch/watch.ts";
import type { Access, Resources } from "../collaborators.ts";
import type { Handlers } from "../definition.ts";
import { WatchRights } from "./watch-rights.ts";
import { WatchSender } from "./watch-sender.ts";

export interface WatchServiceDeps {
  readonly db: Db;
  readonly feed: Feed;
  readonly hub: Hub;
  readonly reader: SecretReader;
  readonly access: Pick<Access, "policies">;
  readonly resources: Pick<Resources, "lease">;
}

export function watchService({ db, feed, hub, reader, access, resources }: WatchServiceDeps): Handlers<typeof WatchService> {
  return {
    async watch({ paths, types, resumeToken, snapshot, includeValues }, call, out) {
      if (resumeToken !== "" && snapshot) throw invalid("resume_token", "must not be set together with snapshot");
      const scopes = paths.map((path) => parseScope(path));
      const rights = await WatchRights.of(call, access, scopes, resources);
      const sender = new WatchSender({ reader, call, out, rights, includeValues }, resumeToken);
      const watch = new Watch(db, feed, hub, { scopes, types: new Set<number>(types), resumeToken, snapshot }, sender);
      out.resumeToken = () => sender.token;
      out.judge = () => sender.judge();
      out.onEnd = () => watch.close();
      await watch.run();
    },
  };
}
