// Commands in a sandbox.
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
const run = (command, options) => file.box.commands.run(command, options);
const start = (command, options) => run(command, { background: true, ...options });

covers(["Commands.run"], "a command and its result", async () => {
  const heard = { out: "", err: "" };
  const result = await run("echo out; echo err >&2", {
    onStdout: (text) => (heard.out += text),
    onStderr: (text) => (heard.err += text),
  });
  assert.equal(result.exitCode, 0);
  assert.equal(result.error, undefined);
  assert.deepEqual([result.stdout, result.stderr], ["out\n", "err\n"]);
  assert.deepEqual(heard, { out: "out\n", err: "err\n" });
});

covers(["Commands.run"], "user, directory and environment of a command", async () => {
  const options = { user: "root", cwd: "/tmp", envs: { GIVEN: "é ü 🔥" } };
  const { stdout } = await run("whoami; pwd; echo $GIVEN", options);
  assert.equal(stdout, "root\n/tmp\né ü 🔥\n");
  assert.equal((await run("whoami; pwd")).stdout, "user\n/home/user\n");
});

covers(["Commands.run"], "much output, characters cut anywhere", async () => {
  const { stdout } = await run(`python3 -c "print('é🔥' * 100_000, end='')"`);
  assert.equal(stdout, "é🔥".repeat(100_000));
});

covers(
  ["Commands.run", "Commands.list", "Commands.kill", "CommandHandle.kill"],
  "commands in the background",
  async () => {
    const [one, another] = [await start("sleep 300"), await start("sleep 301")];
    const listed = await file.box.commands.list();
    const found = listed.find((process) => process.pid === one.pid);
    assert.equal(found.cmd, "/bin/bash");
    assert.deepEqual(found.args, ["-l", "-c", "sleep 300"]);
    assert.equal(await file.box.commands.kill(one.pid), true);
    assert.equal(await another.kill(), true);
    for (const handle of [one, another]) {
      await assert.rejects(handle.wait(), (error) => {
        assert.ok(error instanceof CommandExitError);
        assert.equal(error.exitCode, -1);
        assert.equal(error.error, "signal: killed");
        return true;
      });
    }
    assert.equal(await file.box.commands.kill(NO_PID), false);
    assert.equal(await one.kill(), false);
  },
);

covers(
  ["Commands.sendStdin", "Commands.closeStdin", "CommandHandle.wait"],
  "standard input by process id",
  async () => {
    const handle = await start("cat", { stdin: true });
    await file.box.commands.sendStdin(handle.pid, "text, ");
    await file.box.commands.sendStdin(handle.pid, new TextEncoder().encode("bytes"));
    await file.box.commands.closeStdin(handle.pid);
    assert.equal((await handle.wait()).stdout, "text, bytes");
  },
);

covers(
  ["CommandHandle.sendStdin", "CommandHandle.closeStdin", "CommandHandle.wait"],
  "standard input by handle",
  async () => {
    const handle = await start("wc -c", { stdin: true });
    await handle.sendStdin("x".repeat(200_000));
    await handle.closeStdin();
    assert.equal((await handle.wait()).stdout.trim(), "200000");
    assert.equal(handle.exitCode, 0);
  },
);

covers(
  ["Commands.connect", "CommandHandle.disconnect", "CommandHandle.wait"],
  "a command goes on without its client and is found again",
  async () => {
    const first = await start("read line; echo heard $line", { stdin: true });
    await first.disconnect();
    let heard = "";
    const options = { onStdout: (text) => (heard += text) };
    const second = await file.box.commands.connect(first.pid, options);
    assert.equal(second.pid, first.pid);
    await second.sendStdin("it\n");
    assert.equal((await second.wait()).stdout, "heard it\n");
    assert.equal(heard, "heard it\n");
    // The exit of a process is kept for a while.
    const late = await file.box.commands.connect(first.pid);
    assert.equal((await late.wait()).exitCode, 0);
  },
);

coversError(
  CommandExitError,
  ["Commands.run", "CommandHandle.wait"],
  "a status that is not zero",
  async () => {
    const failed = (error) => {
      assert.ok(error instanceof CommandExitError);
      assert.deepEqual(
        [error.exitCode, error.stdout, error.stderr, error.error],
        [7, "out\n", "err\n", "exit status 7"],
      );
      return true;
    };
    const command = "echo out; echo err >&2; exit 7";
    await assert.rejects(run(command), failed);
    await assert.rejects((await start(command)).wait(), failed);
  },
);

coversError(
  TimeoutError,
  ["Commands.run", "CommandHandle.wait"],
  "a command that takes too long is killed",
  async () => {
    await assert.rejects(run("sleep 302", { timeoutMs: 1_000 }), TimeoutError);
    const handle = await start("sleep 302", { timeoutMs: TIME_TO_START });
    await assert.rejects(handle.wait(), TimeoutError);
    const runs = async () =>
      (await file.box.commands.list()).some((process) => process.args.includes("sleep 302"));
    await waitUntil(async () => !(await runs()), "no such command runs");
  },
);

coversError(TimeoutError, ["Commands.connect"], "a connection's time limit", async () => {
  const handle = await start("sleep 303");
  const connected = await file.box.commands.connect(handle.pid, { timeoutMs: TIME_TO_START });
  await assert.rejects(connected.wait(), TimeoutError);
  assert.equal(await handle.kill(), true, "the command itself went on");
});

coversError(AuthenticationError, ["Commands.run"], "a user that is not there", async () => {
  await assert.rejects(run("true", { user: "nobody-here" }), {
    name: "AuthenticationError",
    message: /invalid username: 'nobody-here'/,
  });
});

coversError(InvalidArgumentError, ["Commands.run"], "a directory that is not there", async () => {
  await assert.rejects(run("true", { cwd: "/no/such" }), {
    name: "InvalidArgumentError",
    message: /cwd '\/no\/such' does not exist/,
  });
});

coversError(
  NotFoundError,
  ["Commands.connect", "Commands.sendStdin", "Commands.closeStdin"],
  "a process that is not there",
  async () => {
    await assert.rejects(file.box.commands.connect(NO_PID), NotFoundError);
    await assert.rejects(file.box.commands.sendStdin(NO_PID, "x"), NotFoundError);
    await assert.rejects(file.box.commands.closeStdin(NO_PID), NotFoundError);
  },
);

coversError(
  NotFoundError,
  ["CommandHandle.sendStdin", "CommandHandle.closeStdin"],
  "the input of a process that has ended",
  async () => {
    const handle = await start("true", { stdin: true });
    await handle.wait();
    await assert.rejects(handle.sendStdin("x"), NotFoundError);
    await assert.rejects(handle.closeStdin(), NotFoundError);
  },
);

coversError(
  SandboxError,
  ["Commands.sendStdin", "CommandHandle.sendStdin"],
  "input to a command that was started without",
  async () => {
    const handle = await start("sleep 304");
    await assert.rejects(file.box.commands.sendStdin(handle.pid, "x"), SandboxError);
    await assert.rejects(handle.sendStdin("x"), SandboxError);
    await handle.kill();
  },
);
