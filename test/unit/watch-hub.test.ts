import { describe, expect, it } from "vitest";
import type { Change } from "../../src/model/event.ts";
import { parseScope } from "../../src/model/path.ts";
import { Hub } from "../../src/watch/hub.ts";
import { RecentChanges } from "../../src/watch/recent-changes.ts";
import { type Receiver, Subscription } from "../../src/watch/subscription.ts";
import { Wheel } from "../../src/watch/wheel.ts";

function change(revision: number, path: string, more: Partial<Change> = {}): Change {
  return { revision, at: 0, type: 1, path, version: 1, versions: [], leaseId: undefined, principal: "", expireAt: undefined, removed: false, ...more };
}

/** Takes what it is given; busy while `hold` is set. */
class Taker implements Receiver {
  readonly taken: number[] = [];
  readonly upTo: number[] = [];
  hold: PromiseWithResolvers<void> | undefined;
  receive(changes: readonly Change[], upTo: number): Promise<void> | undefined {
    this.taken.push(...changes.map((each) => each.revision));
    this.upTo.push(upTo);
    return this.hold?.promise;
  }
}

function subscribed(hub: Hub, ...paths: string[]): { taker: Taker; subscription: Subscription } {
  const taker = new Taker();
  return { taker, subscription: hub.subscribe({ scopes: paths.map((path) => parseScope(path)), types: new Set() }, taker, 0) };
}

describe("the hub", () => {
  it("gives a change to those alone who watch its path, a folder above it or its lease, once", () => {
    const hub = new Hub();
    const watches = ["secrets/a/b", "secrets/a/**", "secrets/**", "secrets/a", "secrets/ab/**", "leases/1"].map((path) => subscribed(hub, path).taker);
    const twice = subscribed(hub, "secrets/a/**", "secrets/a/b", "secrets/**").taker;
    hub.changed([change(1, "secrets/a/b"), change(2, "credentials/x/y", { leaseId: "1" })]);
    expect(watches.map((taker) => taker.taken)).toEqual([[1], [1], [1], [], [], [2]]);
    expect([twice.taken, twice.upTo]).toEqual([[1], [2]]);
  });

  it("touches only the receivers of a change, however many watch other paths", () => {
    const hub = new Hub();
    let touched = 0;
    const receiver: Receiver = { receive: () => void touched++ };
    for (let i = 0; i < 10_000; i++) hub.subscribe({ scopes: [parseScope(`secrets/app-${i}/key`)], types: new Set() }, receiver, 0);
    for (let revision = 1; revision <= 100; revision++) hub.changed([change(revision, `secrets/app-${revision}/key`)]);
    expect([touched, hub.size]).toEqual([100, 10_000]);
  });

  it("passes over types nobody asked for, and what was unsubscribed", () => {
    const hub = new Hub();
    const taker = new Taker();
    hub.subscribe({ scopes: [parseScope("secrets/**")], types: new Set([6]) }, taker, 0);
    const gone = subscribed(hub, "secrets/**");
    hub.unsubscribe(gone.subscription);
    hub.changed([change(1, "secrets/a"), change(2, "secrets/a", { type: 6 })]);
    expect([taker.taken, gone.taker.taken, hub.size]).toEqual([[2], [], 1]);
  });

  it("lesson 35: a busy receiver gets the rest in one go; the others wait for nothing", async () => {
    const hub = new Hub();
    const [slow, fast] = [subscribed(hub, "secrets/**").taker, subscribed(hub, "secrets/**").taker];
    slow.hold = Promise.withResolvers();
    for (let revision = 1; revision <= 5; revision++) hub.changed([change(revision, "secrets/a")]);
    expect([slow.taken, fast.taken]).toEqual([[1], [1, 2, 3, 4, 5]]);
    const { resolve } = slow.hold;
    slow.hold = undefined;
    resolve();
    while (slow.taken.length < 5) await new Promise((next) => setImmediate(next));
    expect(slow.upTo).toEqual([1, 5]);
  });

  it("a receiver that stays busy is ended with WATCH_TOO_SLOW after a bounded number of changes, which are let go", async () => {
    const hub = new Hub();
    const { taker, subscription } = subscribed(hub, "secrets/**");
    taker.hold = Promise.withResolvers();
    for (let revision = 1; revision <= 5000; revision++) hub.changed([change(revision, "secrets/a")]);
    await expect(subscription.ended).rejects.toMatchObject({ reason: "WATCH_TOO_SLOW" });
    expect(taker.taken).toEqual([1]);
  });

  it("one that was merely not given its turn reads on in the log", async () => {
    const taker = new Taker();
    const subscription = new Subscription({ scopes: [], types: new Set() }, taker, () => {});
    for (let revision = 1; revision <= 5000; revision++) subscription.offer(change(revision, "secrets/a"));
    expect(await subscription.ended).toBe("behind");
    expect(taker.taken).toEqual([]);
  });

  it("after a restart all read on in the log, once what is under way is through", async () => {
    const hub = new Hub();
    const [idle, busy] = [subscribed(hub, "secrets/**"), subscribed(hub, "secrets/**")];
    busy.taker.hold = Promise.withResolvers();
    hub.changed([change(1, "secrets/a")]);
    let through = false;
    const ended = busy.subscription.ended.then(() => expect(through).toBe(true));
    hub.restarted();
    expect(await idle.subscription.ended).toBe("behind");
    through = true;
    busy.taker.hold.resolve();
    await ended;
  });

  it("what a receiver throws ends its watch and no other", async () => {
    const hub = new Hub();
    const failing = hub.subscribe(
      { scopes: [parseScope("secrets/**")], types: new Set() },
      {
        receive: () => {
          throw new Error("no");
        },
      },
      0,
    );
    const { taker } = subscribed(hub, "secrets/**");
    hub.changed([change(1, "secrets/a")]);
    await expect(failing.ended).rejects.toThrow("no");
    expect(taker.taken).toEqual([1]);
  });
});

describe("bookmarks", () => {
  it("come to each watch every 9 to 11 s", () => {
    const due: Subscription[] = [];
    const wheel = new Wheel((subscription) => due.push(subscription));
    const all = Array.from({ length: 500 }, () => new Subscription({ scopes: [], types: new Set() }, new Taker(), () => {}));
    for (const subscription of all) wheel.add(subscription);
    const last = new Map<Subscription, number>(all.map((subscription) => [subscription, 0]));
    for (let tick = 1; tick <= 1000; tick++) {
      due.length = 0;
      wheel.turn();
      for (const subscription of due) {
        const waited = tick - last.get(subscription)!;
        expect(waited).toBeGreaterThanOrEqual(90);
        expect(waited).toBeLessThanOrEqual(110);
        last.set(subscription, tick);
      }
    }
    expect([...last.values()].every((tick) => tick > 1000 - 110)).toBe(true);
    for (const subscription of all) wheel.remove(subscription);
    due.length = 0;
    for (let tick = 0; tick < 200; tick++) wheel.turn();
    expect(due).toEqual([]);
  });

  it("lesson 33: never run ahead of what is queued", () => {
    const taker = new Taker();
    const subscription = new Subscription({ scopes: [], types: new Set() }, taker, () => {});
    subscription.offer(change(7, "secrets/a"));
    subscription.bookmark(9);
    expect(taker.upTo).toEqual([]);
    subscription.pump(9);
    subscription.bookmark(9);
    expect([taker.taken, taker.upTo]).toEqual([[7], [9, 9]]);
  });
});

describe("recent changes", () => {
  it("answer what came after a revision, or that it is not all held", () => {
    const recent = new RecentChanges(10);
    expect(recent.after(0, 1)).toBeUndefined();
    for (let revision = 5; revision <= 40; revision++) recent.add([change(revision, "secrets/a")]);
    expect(recent.after(38, 40)!.map((each) => each.revision)).toEqual([39, 40]);
    expect(recent.after(37, 38)!.map((each) => each.revision)).toEqual([38]);
    expect([recent.after(4, 40), recent.after(39, 41)]).toEqual([undefined, undefined]);
    recent.clear();
    expect(recent.after(38, 40)).toBeUndefined();
  });
});
