// Wrong credentials, limits, and sandboxes that are gone.
import assert from "node:assert/strict";
import {
  AuthenticationError,
  E2B,
  InvalidArgumentError,
  RateLimitError,
  Sandbox,
  SandboxError,
  SandboxNotFoundError,
  TimeoutError,
} from "e2b";
import { covers, coversError } from "./support/covering.js";
import { NO_SANDBOX, sandboxOfThisFile } from "./support/sandbox.js";

const WRONG_KEY = { apiKey: `e2b_${"0".repeat(40)}` };

const file = sandboxOfThisFile();

async function killedSandbox() {
  const sandbox = await Sandbox.create({ timeoutMs: 120_000 });
  await sandbox.kill();
  return sandbox;
}

coversError(
  AuthenticationError,
  [
    "Sandbox.create",
    "Sandbox.connect",
    "Sandbox.getInfo",
    "Sandbox.getFullInfo",
    "Sandbox.getMetrics",
    "Sandbox.setTimeout",
    "Sandbox.kill",
    "Sandbox.list",
    "SandboxPaginator.nextItems",
  ],
  "a key that nobody has",
  async () => {
    const refused = (call) => assert.rejects(call, AuthenticationError);
    const id = file.box.sandboxId;
    await refused(Sandbox.create(WRONG_KEY));
    await refused(Sandbox.connect(id, WRONG_KEY));
    await refused(Sandbox.getInfo(id, WRONG_KEY));
    await refused(Sandbox.getFullInfo(id, WRONG_KEY));
    await refused(Sandbox.getMetrics(id, WRONG_KEY));
    await refused(Sandbox.setTimeout(id, 60_000, WRONG_KEY));
    await refused(Sandbox.kill(id, WRONG_KEY));
    await refused(Sandbox.list(WRONG_KEY).nextItems());
    assert.equal(await file.box.isRunning(), true);
  },
);

covers(["E2B.Volume", "E2B.Template", "E2B.Secret"], "a client's key is its own", async () => {
  const client = new E2B(WRONG_KEY);
  await assert.rejects(client.Volume.list(), AuthenticationError);
  await assert.rejects(client.Template.exists("base"), AuthenticationError);
  await assert.rejects(client.Secret.list().nextItems(), AuthenticationError);
});

coversError(RateLimitError, ["Sandbox.create"], "more sandboxes than allowed", async () => {
  const apiKey = process.env.EMBERBOX_TEST_KEY_OF_SMALL_TEAM;
  assert.ok(apiKey, "the suite gives the key of a team that may have one sandbox");
  const only = await Sandbox.create({ apiKey, timeoutMs: 60_000 });
  try {
    await assert.rejects(Sandbox.create({ apiKey, retries: 0 }), RateLimitError);
  } finally {
    await only.kill();
  }
});

coversError(SandboxError, ["Sandbox.create", "Sandbox.setTimeout"], "bad requests", async () => {
  const answer = (statusCode, message) => ({ name: "SandboxError", statusCode, message });
  await assert.rejects(Sandbox.create("no-such"), answer(404, /template 'no-such' not found/));
  await assert.rejects(Sandbox.create("no such!"), answer(400, /Invalid template reference/));
  const noGateway = answer(404, /template 'mcp-gateway' not found/);
  await assert.rejects(Sandbox.create({ mcp: {} }), noGateway);
  await assert.rejects(Sandbox.create({ timeoutMs: -1_000 }), answer(400, /Timeout/));
  const centuries = { timeoutMs: 2 ** 42 };
  await assert.rejects(Sandbox.create(centuries), answer(400, /Timeout/));
  await assert.rejects(file.box.setTimeout(2 ** 42), SandboxError);
});

coversError(
  InvalidArgumentError,
  ["Sandbox.create", "Sandbox.connect"],
  "options that contradict each other",
  async () => {
    const lifecycle = { onTimeout: "kill", autoResume: true };
    await assert.rejects(Sandbox.create({ lifecycle }), InvalidArgumentError);
    const options = { onResume: "wrong" };
    await assert.rejects(Sandbox.connect(NO_SANDBOX, options), InvalidArgumentError);
  },
);

coversError(
  AuthenticationError,
  [
    "Commands.run",
    "Commands.list",
    "Commands.kill",
    "Commands.connect",
    "Commands.sendStdin",
    "Commands.closeStdin",
    "Pty.create",
    "Pty.connect",
    "Pty.sendInput",
    "Pty.resize",
    "Pty.kill",
    "Filesystem.read",
    "Filesystem.write",
    "Filesystem.list",
    "Filesystem.watchDir",
  ],
  "a token that is not the sandbox's",
  async () => {
    const { sandboxId } = file.box;
    const { commands, pty, files } = new Sandbox({
      sandboxId,
      envdVersion: "0.6.13",
      envdAccessToken: "wrong",
    });
    const refused = (call) => assert.rejects(call, AuthenticationError);
    await refused(commands.run("true"));
    await refused(commands.list());
    await refused(commands.kill(1));
    await refused(commands.connect(1));
    await refused(commands.sendStdin(1, "x"));
    await refused(commands.closeStdin(1));
    await refused(pty.create({ cols: 80, rows: 24, onData: () => {} }));
    await refused(pty.connect(1));
    await refused(pty.sendInput(1, new Uint8Array(1)));
    await refused(pty.resize(1, { cols: 80, rows: 24 }));
    await refused(pty.kill(1));
    await refused(files.read("/etc/hostname"));
    await refused(files.write("x", "y"));
    await refused(files.list("/"));
    await refused(files.watchDir("/", () => {}));
  },
);

coversError(
  SandboxNotFoundError,
  [
    "Sandbox.getInfo",
    "Sandbox.connect",
    "Sandbox.setTimeout",
    "Commands.run",
    "Commands.connect",
    "Pty.create",
    "Pty.connect",
    "Filesystem.watchDir",
    "Git.status",
  ],
  "a sandbox that was killed",
  async () => {
    const killed = await killedSandbox();
    const gone = (call) => assert.rejects(call, SandboxNotFoundError);
    await gone(killed.getInfo());
    await gone(killed.connect());
    await gone(killed.setTimeout(60_000));
    await gone(killed.commands.run("true"));
    await gone(killed.commands.connect(1));
    await gone(killed.pty.create({ cols: 80, rows: 24, onData: () => {} }));
    await gone(killed.pty.connect(1));
    await gone(killed.files.watchDir("/tmp", () => {}));
    await gone(killed.git.status("/tmp"));
  },
);

coversError(
  TimeoutError,
  [
    "Commands.list",
    "Commands.kill",
    "Commands.sendStdin",
    "Commands.closeStdin",
    "Pty.sendInput",
    "Pty.resize",
    "Pty.kill",
    "Filesystem.read",
    "Filesystem.write",
    "Filesystem.writeFiles",
    "Filesystem.list",
    "Filesystem.makeDir",
    "Filesystem.rename",
    "Filesystem.remove",
    "Filesystem.exists",
    "Filesystem.getInfo",
  ],
  "what is asked of a killed sandbox",
  async () => {
    const { commands, pty, files } = await killedSandbox();
    const late = (call) => assert.rejects(call, TimeoutError);
    await late(commands.list());
    await late(commands.kill(1));
    await late(commands.sendStdin(1, "x"));
    await late(commands.closeStdin(1));
    await late(pty.sendInput(1, new Uint8Array(1)));
    await late(pty.resize(1, { cols: 80, rows: 24 }));
    await late(pty.kill(1));
    await late(files.read("x"));
    await late(files.write("x", "y"));
    await late(files.writeFiles([{ path: "x", data: "y" }]));
    await late(files.list("x"));
    await late(files.makeDir("x"));
    await late(files.rename("x", "y"));
    await late(files.remove("x"));
    await late(files.exists("x"));
    await late(files.getInfo("x"));
  },
);

coversError(
  TimeoutError,
  ["CommandHandle.wait"],
  "a sandbox that is killed meanwhile",
  async () => {
    const doomed = await Sandbox.create({ timeoutMs: 120_000 });
    const handle = await doomed.commands.run("sleep 300", { background: true });
    const terminal = await doomed.pty.create({ cols: 80, rows: 24, onData: () => {} });
    const ended = { name: "TimeoutError", message: /was killed or reached its end of life/ };
    const waits = [handle, terminal].map((waiting) => assert.rejects(waiting.wait(), ended));
    await doomed.kill();
    await Promise.all(waits);
  },
);
