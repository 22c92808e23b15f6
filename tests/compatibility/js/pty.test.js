// Terminals in a sandbox.
import assert from "node:assert/strict";
import {
  AuthenticationError,
  CommandExitError,
  InvalidArgumentError,
  NotFoundError,
  SandboxError,
  TimeoutError,
} from "e2b";
import { covers, coversError } from "./support/covering.js";
import { TIME_TO_START, sandboxOfThisFile, waitUntil } from "./support/sandbox.js";

const NO_PID = 999_999;

const file = sandboxOfThisFile();

/** A terminal, what it has shown so far, and a way to type. */
async function terminal(options = {}) {
  const decoder = new TextDecoder();
  const screen = { text: "" };
  const onData = (data) => (screen.text += decoder.decode(data, { stream: true }));
  const handle = await file.box.pty.create({ cols: 80, rows: 24, onData, ...options });
  const type = (text) => file.box.pty.sendInput(handle.pid, new TextEncoder().encode(text));
  const shows = (text) => waitUntil(() => screen.text.includes(text), `it shows ${text}`);
  return { handle, screen, type, shows };
}

covers(["Pty.create", "Pty.sendInput", "CommandHandle.wait"], "a terminal session", async () => {
  const options = { cwd: "/tmp", user: "root", envs: { GIVEN: "é" } };
  const { handle, type, shows } = await terminal(options);
  await type("echo $((40 + 2)) $TERM $GIVEN $PWD $(whoami)\n");
  await shows("42 xterm-256color é /tmp root");
  await type("exit\n");
  assert.equal((await handle.wait()).exitCode, 0);
});

covers(["Pty.create", "Pty.resize"], "the size of a terminal", async () => {
  const { handle, type, shows } = await terminal({ cols: 101, rows: 31 });
  await type("stty size\n");
  await shows("31 101");
  await file.box.pty.resize(handle.pid, { cols: 133, rows: 47 });
  await type("stty size\n");
  await shows("47 133");
  await handle.kill();
});

covers(["Pty.connect", "CommandHandle.disconnect"], "a terminal is found again", async () => {
  const { handle, type, shows } = await terminal();
  await type("kept=still\n");
  await shows("kept=still");
  await handle.disconnect();
  let heard = "";
  const onData = (data) => (heard += Buffer.from(data).toString());
  const again = await file.box.pty.connect(handle.pid, { onData });
  await type("echo $kept-there\n");
  await waitUntil(() => heard.includes("still-there"), "the output reaches the second client");
  await type("exit 3\n");
  await assert.rejects(again.wait(), (error) => {
    assert.ok(error instanceof CommandExitError);
    assert.equal(error.exitCode, 3);
    return true;
  });
});

covers(["Pty.kill"], "a terminal is killed", async () => {
  const { handle } = await terminal({ timeoutMs: 0 });
  assert.equal(await file.box.pty.kill(handle.pid), true);
  await assert.rejects(handle.wait(), CommandExitError);
  assert.equal(await file.box.pty.kill(handle.pid), false);
  assert.equal(await file.box.pty.kill(NO_PID), false);
});

coversError(TimeoutError, ["Pty.create"], "a terminal's time limit", async () => {
  const { handle } = await terminal({ timeoutMs: TIME_TO_START });
  await assert.rejects(handle.wait(), TimeoutError);
});

coversError(TimeoutError, ["Pty.connect"], "a connection's time limit", async () => {
  const { handle } = await terminal();
  const again = await file.box.pty.connect(handle.pid, { timeoutMs: TIME_TO_START });
  await assert.rejects(again.wait(), TimeoutError);
  assert.equal(await handle.kill(), true, "the terminal itself went on");
});

coversError(
  NotFoundError,
  ["Pty.connect", "Pty.sendInput", "Pty.resize"],
  "a terminal that is not there",
  async () => {
    await assert.rejects(file.box.pty.connect(NO_PID), NotFoundError);
    await assert.rejects(file.box.pty.sendInput(NO_PID, new Uint8Array([10])), NotFoundError);
    await assert.rejects(file.box.pty.resize(NO_PID, { cols: 80, rows: 24 }), NotFoundError);
  },
);

coversError(AuthenticationError, ["Pty.create"], "a user that is not there", async () => {
  await assert.rejects(terminal({ user: "nobody-here" }), AuthenticationError);
});

coversError(InvalidArgumentError, ["Pty.create"], "a directory that is not there", async () => {
  await assert.rejects(terminal({ cwd: "/no/such" }), InvalidArgumentError);
});

coversError(SandboxError, ["Pty.resize"], "a process that is no terminal", async () => {
  const handle = await file.box.commands.run("sleep 300", { background: true });
  await assert.rejects(file.box.pty.resize(handle.pid, { cols: 80, rows: 24 }), SandboxError);
  await handle.kill();
});
