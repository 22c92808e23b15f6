// Pausing, connecting again, snapshots and forks.
import assert from "node:assert/strict";
import http from "node:http";
import {
  AuthenticationError,
  InvalidArgumentError,
  RateLimitError,
  Sandbox,
  SandboxError,
  SandboxNotFoundError,
} from "e2b";
import { covers, coversError } from "./support/covering.js";
import { NO_SANDBOX, waitUntil } from "./support/sandbox.js";

const WRONG_KEY = { apiKey: `e2b_${"0".repeat(40)}` };
const BY_TRAFFIC = { onTimeout: "pause", autoResume: true };

async function withSandbox(options, body) {
  const sandbox = await Sandbox.create({ timeoutMs: 300_000, ...options });
  try {
    await body(sandbox);
  } finally {
    await sandbox.kill();
  }
}

const bootOf = (box) => box.files.read("/proc/sys/kernel/random/boot_id");
const stateOf = async (box) => (await box.getInfo()).state;
const becomesPaused = (box) => waitUntil(async () => (await stateOf(box)) === "paused", "paused", 60);

covers(
  ["Sandbox.pause", "Sandbox.betaPause", "Sandbox.connect", "Sandbox.getInfo", "Sandbox.isRunning"],
  "all that was in memory goes on",
  () =>
    withSandbox({}, async (box) => {
      const boot = await bootOf(box);
      const sleep = await box.commands.run("sleep 1000", { background: true });
      await box.files.write("/dev/shm/kept", "in memory");
      assert.equal(await box.pause(), true);
      assert.equal(await box.pause(), false);
      assert.equal(await stateOf(box), "paused");
      assert.equal(await box.isRunning(), false);
      const again = await Sandbox.connect(box.sandboxId);
      assert.equal(await bootOf(again), boot);
      assert.equal(await again.files.read("/dev/shm/kept"), "in memory");
      assert.ok((await again.commands.list()).some(({ pid }) => pid === sleep.pid));
      assert.equal(await Sandbox.pause(box.sandboxId), true);
      await box.connect();
      assert.equal(await box.betaPause(), true);
      await box.connect();
      assert.equal(await bootOf(box), boot);
    }),
);

covers(["Sandbox.pause", "Sandbox.connect"], "files alone, when that is asked for", () =>
  withSandbox({}, async (box) => {
    const boot = await bootOf(box);
    await box.files.write("kept", boot);
    await box.pause({ keepMemory: false });
    await box.connect();
    const second = await bootOf(box);
    assert.notEqual(second, boot);
    await box.pause();
    await box.connect({ onResume: "reboot" });
    assert.notEqual(await bootOf(box), second);
    assert.equal(await box.files.read("kept"), boot);
  }),
);

covers(
  ["Sandbox.create", "Sandbox.setTimeout", "Sandbox.isRunning", "Sandbox.getHost"],
  "paused at its deadline, resumed by traffic",
  () =>
    withSandbox({ lifecycle: BY_TRAFFIC }, async (box) => {
      const boot = await bootOf(box);
      assert.deepEqual((await box.getInfo()).lifecycle, BY_TRAFFIC);
      await box.setTimeout(1_000);
      await becomesPaused(box);
      assert.equal(await box.isRunning(), true);
      assert.equal(await stateOf(box), "running");
      await box.pause();
      assert.equal(await bootOf(box), boot);
      await box.pause();
      assert.equal(await get(box.getHost(8001)), 502);
      assert.equal(await stateOf(box), "running");
    }),
);

covers(["Sandbox.create", "Sandbox.connect"], "paused at its deadline, connected to", () =>
  withSandbox({ lifecycle: { onTimeout: { action: "pause", keepMemory: false } } }, async (box) => {
    await box.files.write("kept", "on disk");
    await box.setTimeout(1_000);
    await becomesPaused(box);
    assert.equal(await box.isRunning(), false);
    await box.connect();
    assert.equal(await box.files.read("kept"), "on disk");
  }),
);

covers(
  ["Sandbox.list", "SandboxPaginator.nextItems", "Sandbox.kill"],
  "a paused one is listed until it is killed",
  async () => {
    const metadata = { paused: crypto.randomUUID() };
    const box = await Sandbox.create({ timeoutMs: 300_000, metadata });
    await box.pause();
    const found = async (state) =>
      (await Sandbox.list({ query: { metadata, state } }).nextItems()).map((one) => one.sandboxId);
    assert.deepEqual(await found(["paused"]), [box.sandboxId]);
    assert.deepEqual(await found(["running"]), []);
    assert.equal(await box.kill(), true);
    assert.equal(await box.kill(), false);
    assert.deepEqual(await found(["paused"]), []);
  },
);

covers(
  [
    "Sandbox.createSnapshot",
    "Sandbox.listSnapshots",
    "Sandbox.deleteSnapshot",
    "SnapshotPaginator.nextItems",
    "Sandbox.create",
  ],
  "snapshots",
  () =>
    withSandbox({}, async (box) => {
      const name = `js-${crypto.randomUUID()}`;
      await box.files.write("/dev/shm/kept", "before");
      const first = await Sandbox.createSnapshot(box.sandboxId);
      await box.files.write("/dev/shm/kept", "named");
      const named = await box.createSnapshot({ name: `${name}:v1` });
      assert.deepEqual(named, { snapshotId: `default/${name}:v1`, names: [`default/${name}:v1`] });
      const ids = [named.snapshotId, first.snapshotId];
      assert.deepEqual(await drained(box.listSnapshots({ limit: 1 })), ids);
      assert.deepEqual(await drained(Sandbox.listSnapshots({ sandboxId: box.sandboxId })), ids);
      for (const [id, content] of [[first.snapshotId, "before"], [`${name}:v1`, "named"]]) {
        const made = await Sandbox.create(id, { timeoutMs: 120_000 });
        assert.equal(await made.files.read("/dev/shm/kept"), content);
        await assert.rejects(Sandbox.deleteSnapshot(id), { name: "SandboxError", statusCode: 400 });
        await made.kill();
        assert.equal(await Sandbox.deleteSnapshot(id), true);
        assert.equal(await Sandbox.deleteSnapshot(id), false);
      }
    }),
);

async function drained(paginator) {
  const ids = [];
  while (paginator.hasNext) ids.push(...(await paginator.nextItems()).map((one) => one.snapshotId));
  return ids;
}

covers(["Sandbox.fork"], "children go on from where the source is", () =>
  withSandbox({}, async (box) => {
    await box.files.write("/dev/shm/kept", "in memory");
    const children = await box.fork({ count: 2, timeoutMs: 120_000 });
    children.push(...(await Sandbox.fork(box.sandboxId, { timeoutMs: 120_000 })));
    assert.equal(new Set([box, ...children].map((one) => one.sandboxId)).size, 4);
    for (const child of children) {
      assert.equal(await child.files.read("/dev/shm/kept"), "in memory");
      assert.equal((await child.commands.run("hostname")).stdout.trim(), child.sandboxId);
      await child.kill();
    }
    assert.equal(await box.isRunning(), true);
  }),
);

coversError(RateLimitError, ["Sandbox.fork"], "each child succeeds or fails alone", async () => {
  const apiKey = process.env.EMBERBOX_TEST_KEY_OF_SMALL_TEAM;
  await withSandbox({ apiKey }, async (box) => {
    const [error] = await box.fork();
    assert.ok(error instanceof RateLimitError, `${error}`);
  });
});

coversError(
  SandboxNotFoundError,
  ["Sandbox.pause", "Sandbox.betaPause", "Sandbox.fork", "Sandbox.createSnapshot"],
  "a sandbox that is not there",
  async () => {
    await assert.rejects(Sandbox.pause(NO_SANDBOX), SandboxNotFoundError);
    await assert.rejects(Sandbox.betaPause(NO_SANDBOX), SandboxNotFoundError);
    await assert.rejects(Sandbox.fork(NO_SANDBOX), SandboxNotFoundError);
    await assert.rejects(Sandbox.createSnapshot(NO_SANDBOX), SandboxNotFoundError);
  },
);

coversError(
  AuthenticationError,
  [
    "Sandbox.pause",
    "Sandbox.fork",
    "Sandbox.createSnapshot",
    "Sandbox.deleteSnapshot",
    "SnapshotPaginator.nextItems",
  ],
  "a key that nobody has",
  async () => {
    await assert.rejects(Sandbox.pause(NO_SANDBOX, WRONG_KEY), AuthenticationError);
    await assert.rejects(Sandbox.fork(NO_SANDBOX, WRONG_KEY), AuthenticationError);
    await assert.rejects(Sandbox.createSnapshot(NO_SANDBOX, WRONG_KEY), AuthenticationError);
    await assert.rejects(Sandbox.deleteSnapshot("none", WRONG_KEY), AuthenticationError);
    await assert.rejects(Sandbox.listSnapshots(WRONG_KEY).nextItems(), AuthenticationError);
  },
);

coversError(SandboxError, ["Sandbox.fork", "SnapshotPaginator.nextItems"], "bad requests", () =>
  withSandbox({}, async (box) => {
    await box.pause();
    await assert.rejects(box.fork(), { name: "SandboxError", statusCode: 409 });
    const pages = Sandbox.listSnapshots({ nextToken: "nonsense" });
    await assert.rejects(pages.nextItems(), { name: "SandboxError", statusCode: 400 });
  }),
);

coversError(InvalidArgumentError, ["Sandbox.create"], "lifecycles that cannot be", async () => {
  for (const lifecycle of [
    { onTimeout: "sleep" },
    { onTimeout: "kill", autoResume: true },
    { onTimeout: { action: "pause", keepMemory: false }, autoResume: true },
  ]) {
    await assert.rejects(Sandbox.create({ lifecycle }), InvalidArgumentError);
  }
});

// The name does not resolve here: the proxy is asked for it by the Host header.
function get(host) {
  return new Promise((resolve, reject) => {
    const request = http.get(process.env.E2B_SANDBOX_URL, { headers: { host } }, (response) => {
      response.resume();
      response.on("end", () => resolve(response.statusCode));
    });
    request.on("error", reject);
  });
}
