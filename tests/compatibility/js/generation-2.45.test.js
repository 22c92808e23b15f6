// The generation of clients that creates and connects by the first routes (e2b 2.45).
import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import { Sandbox, SandboxNotFoundError } from "e2b-2.45";

let box;

before(async () => {
  box = await Sandbox.create("base", { timeoutMs: 300_000, metadata: { generation: "2.45" } });
});
after(() => box?.kill());

test("the package is of that generation", async () => {
  const { default: described } = await import("e2b-2.45/package.json", { with: { type: "json" } });
  assert.equal(described.version, "2.45.0");
});

test("commands", async () => {
  assert.equal((await box.commands.run("echo old")).stdout, "old\n");
  await assert.rejects(box.commands.run("exit 3"), { name: "CommandExitError", exitCode: 3 });
});

test("files", async () => {
  await box.files.write("a/b", "content");
  assert.equal(await box.files.read("a/b"), "content");
  assert.deepEqual((await box.files.list("a")).map((entry) => entry.name), ["b"]);
});

test("connecting and listing", async () => {
  const again = await Sandbox.connect(box.sandboxId);
  assert.equal((await again.commands.run("cat a/b")).stdout, "content");
  const query = { metadata: { generation: "2.45" } };
  const listed = await Sandbox.list({ query }).nextItems();
  assert.deepEqual(listed.map((info) => info.sandboxId), [box.sandboxId]);
});

test("killing", async () => {
  const another = await Sandbox.create({ timeoutMs: 60_000, secure: false });
  assert.equal(await another.isRunning(), true);
  assert.equal(await another.kill(), true);
  assert.equal(await another.isRunning(), false);
  await assert.rejects(another.getInfo(), SandboxNotFoundError);
});
