// What is done with a sandbox as a whole.
import assert from "node:assert/strict";
import http from "node:http";
import { E2B, Sandbox, SandboxError, SandboxNotFoundError } from "e2b";
import { covers, coversError } from "./support/covering.js";
import { NO_SANDBOX, sandboxOfThisFile, waitUntil } from "./support/sandbox.js";

const MARK = { suite: "javascript", "a b": "c/d&e=é" };

const file = sandboxOfThisFile({ metadata: MARK, envs: { GIVEN: "at create" } });

async function drained(paginator) {
  const items = [];
  while (paginator.hasNext) items.push(...(await paginator.nextItems()));
  return items;
}

covers(["Sandbox.create", "Sandbox.getInfo", "Sandbox.getFullInfo"], "information", async () => {
  const another = await Sandbox.create("base", { timeoutMs: 60_000 });
  assert.match(another.sandboxId, /^[a-z0-9]+$/);
  await another.kill();
  const info = await file.box.getInfo();
  assert.equal(info.sandboxId, file.box.sandboxId);
  assert.equal(info.name, "base");
  assert.equal(info.state, "running");
  assert.deepEqual(info.metadata, MARK);
  assert.ok(info.endAt > info.startedAt);
  assert.ok(info.cpuCount > 0 && info.memoryMB > 0);
  assert.deepEqual(info.lifecycle, { onTimeout: "kill", autoResume: false });
  assert.deepEqual(await Sandbox.getInfo(file.box.sandboxId), info);
  assert.deepEqual(await Sandbox.getFullInfo(file.box.sandboxId), info);
});

covers(["Sandbox.create"], "options of create reach the sandbox", async () => {
  assert.equal((await file.box.commands.run("echo $GIVEN")).stdout, "at create\n");
  const options = { timeoutMs: 60_000, allowInternetAccess: false };
  const network = { allowPublicTraffic: false };
  const secluded = await Sandbox.create({ ...options, network });
  try {
    assert.ok(secluded.trafficAccessToken);
    assert.equal((await secluded.getInfo()).allowInternetAccess, false);
  } finally {
    await secluded.kill();
  }
});

covers(["Sandbox.connect"], "connecting never shortens a life", async () => {
  const before = await file.box.getInfo();
  const again = await Sandbox.connect(file.box.sandboxId, { timeoutMs: 1_000 });
  assert.equal((await again.commands.run("echo again")).stdout, "again\n");
  assert.equal((await again.getInfo()).endAt.getTime(), before.endAt.getTime());
  assert.equal((await file.box.connect()).sandboxId, file.box.sandboxId);
});

covers(["Sandbox.setTimeout"], "a time limit is moved, either way", async () => {
  await file.box.setTimeout(1_800_000);
  const later = (await file.box.getInfo()).endAt;
  await Sandbox.setTimeout(file.box.sandboxId, 900_000);
  assert.ok((await file.box.getInfo()).endAt < later);
});

covers(["Sandbox.setTimeout", "Sandbox.isRunning"], "a sandbox ends at its time", async () => {
  const brief = await Sandbox.create({ timeoutMs: 60_000 });
  assert.equal(await brief.isRunning(), true);
  await brief.setTimeout(0);
  await waitUntil(async () => !(await brief.isRunning()), "it runs no more");
});

covers(["Sandbox.kill", "Sandbox.isRunning"], "killing, once and again", async () => {
  const one = await Sandbox.create({ timeoutMs: 60_000 });
  assert.equal(await one.kill(), true);
  assert.equal(await one.isRunning(), false);
  assert.equal(await one.kill(), false);
  const another = await Sandbox.create({ timeoutMs: 60_000 });
  assert.equal(await Sandbox.kill(another.sandboxId), true);
  assert.equal(await Sandbox.kill(NO_SANDBOX), false);
});

covers(["Sandbox.list", "SandboxPaginator.nextItems"], "filters of the list", async () => {
  const { startedAt, sandboxId, templateId } = await file.box.getInfo();
  const found = async (query) =>
    (await drained(Sandbox.list({ query }))).map((info) => info.sandboxId);
  assert.deepEqual(await found({ metadata: MARK }), [sandboxId]);
  assert.deepEqual(await found({ metadata: MARK, state: ["running"] }), [sandboxId]);
  assert.deepEqual(await found({ metadata: MARK, state: ["paused"] }), []);
  assert.deepEqual(await found({ metadata: MARK, template: "base" }), [sandboxId]);
  assert.deepEqual(await found({ metadata: MARK, template: templateId }), [sandboxId]);
  assert.deepEqual(await found({ template: "no-such" }), []);
  assert.deepEqual(await found({ metadata: MARK, startedAfter: startedAt }), [sandboxId]);
  const future = new Date(Date.now() + 3_600_000);
  assert.deepEqual(await found({ metadata: MARK, startedAfter: future }), []);
});

covers(["Sandbox.list", "SandboxPaginator.nextItems"], "pages and order of the list", async () => {
  const metadata = { pages: crypto.randomUUID() };
  const made = [];
  try {
    for (let number = 0; number < 3; number++) {
      made.push(await Sandbox.create({ timeoutMs: 60_000, metadata }));
    }
    const ids = made.map((sandbox) => sandbox.sandboxId);
    const listed = (options) => Sandbox.list({ query: { metadata }, limit: 2, ...options });
    const idsOf = (infos) => infos.map((info) => info.sandboxId);
    assert.deepEqual(idsOf(await drained(listed({ order: "asc" }))), ids);
    const newestFirst = listed({});
    assert.deepEqual(idsOf(await newestFirst.nextItems()), [ids[2], ids[1]]);
    const continued = listed({ nextToken: newestFirst.nextToken });
    assert.deepEqual(idsOf(await continued.nextItems()), [ids[0]]);
    assert.equal(continued.hasNext, false);
  } finally {
    await Promise.all(made.map((sandbox) => sandbox.kill()));
  }
});

coversError(Error, ["SandboxPaginator.nextItems"], "there is nothing after the end", async () => {
  const paginator = Sandbox.list({ query: { metadata: { no: "such" } } });
  assert.deepEqual(await paginator.nextItems(), []);
  await assert.rejects(paginator.nextItems(), /No more items/);
});

coversError(SandboxError, ["SandboxPaginator.nextItems"], "a token that is none", async () => {
  const paginator = Sandbox.list({ nextToken: "nonsense" });
  await assert.rejects(paginator.nextItems(), { name: "SandboxError", statusCode: 400 });
});

coversError(
  SandboxNotFoundError,
  ["Sandbox.connect", "Sandbox.getInfo", "Sandbox.getFullInfo", "Sandbox.setTimeout"],
  "a sandbox that is not there",
  async () => {
    const gone = { name: "SandboxNotFoundError", message: /i0+.* not found/ };
    await assert.rejects(Sandbox.connect(NO_SANDBOX), gone);
    await assert.rejects(Sandbox.getInfo(NO_SANDBOX), gone);
    await assert.rejects(Sandbox.getFullInfo(NO_SANDBOX), gone);
    await assert.rejects(Sandbox.setTimeout(NO_SANDBOX, 60_000), gone);
  },
);

coversError(SandboxNotFoundError, ["Sandbox.getMetrics"], "metrics of nothing", async () => {
  await assert.rejects(Sandbox.getMetrics(NO_SANDBOX), SandboxNotFoundError);
});

covers(["Sandbox.getMetrics"], "metrics are those of the guest", async () => {
  await waitUntil(async () => (await file.box.getMetrics()).length > 0, "a first sample", 60);
  const [first] = await file.box.getMetrics();
  const { cpuCount, memoryMB } = await file.box.getInfo();
  assert.equal(first.cpuCount, cpuCount);
  assert.ok(first.cpuUsedPct >= 0);
  assert.ok(first.memUsed > 0 && first.memUsed < first.memTotal);
  assert.ok(first.memTotal <= memoryMB * 2 ** 20);
  assert.ok(first.diskUsed >= 0 && first.diskUsed < first.diskTotal);
  const { startedAt } = await file.box.getInfo();
  assert.ok(first.timestamp >= startedAt);
  const range = { start: new Date(0), end: new Date(startedAt.getTime() - 60_000) };
  assert.deepEqual(await Sandbox.getMetrics(file.box.sandboxId, range), []);
});

covers(["Sandbox.getHost"], "a port of the sandbox by its host name", async () => {
  await file.box.files.write("/home/user/site/index.html", "served from inside");
  const served = "cd site && exec python3 -m http.server 8000 --bind 127.0.0.1";
  const server = await file.box.commands.run(served, { background: true });
  const host = file.box.getHost(8000);
  assert.ok(host.startsWith(`8000-${file.box.sandboxId}.`));
  await waitUntil(async () => (await get(host)).status === 200, "the server answers");
  assert.equal((await get(host)).body, "served from inside");
  await server.kill();
  await waitUntil(async () => (await get(host)).status === 502, "the port is closed");
  assert.match((await get(host)).body, /port is not open/);
});

// The name does not resolve here: the proxy is asked for it by the Host header.
function get(host) {
  return new Promise((resolve, reject) => {
    const request = http.get(process.env.E2B_SANDBOX_URL, { headers: { host } }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode, body: Buffer.concat(chunks).toString() }),
      );
    });
    request.on("error", reject);
  });
}

covers(["Sandbox.getMcpUrl", "Sandbox.getMcpToken"], "where an MCP gateway would be", async () => {
  assert.equal(file.box.getMcpUrl(), `https://${file.box.getHost(50005)}/mcp`);
  await file.box.files.write("/etc/mcp-gateway/.token", "secret", { user: "root" });
  const { sandboxId } = file.box;
  assert.equal(await (await Sandbox.connect(sandboxId)).getMcpToken(), "secret");
});

covers(["E2B.Sandbox"], "a client with a configuration of its own", async () => {
  const apiKey = process.env.E2B_API_KEY;
  delete process.env.E2B_API_KEY;
  try {
    const client = new E2B({ apiKey });
    const connected = await client.Sandbox.connect(file.box.sandboxId);
    assert.equal((await connected.commands.run("echo client")).stdout, "client\n");
  } finally {
    process.env.E2B_API_KEY = apiKey;
  }
});
