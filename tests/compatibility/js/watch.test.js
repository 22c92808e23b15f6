// Watching the directories of a sandbox.
import assert from "node:assert/strict";
import {
  AuthenticationError,
  FileNotFoundError,
  InvalidArgumentError,
  TimeoutError,
} from "e2b";
import { covers, coversError } from "./support/covering.js";
import { TIME_TO_START, sandboxOfThisFile, waitUntil } from "./support/sandbox.js";

const file = sandboxOfThisFile();

/** A watched directory of its own, and the events so far. */
async function watched(path, options = {}) {
  const events = [];
  await file.box.files.makeDir(path);
  const handle = await file.box.files.watchDir(path, (event) => events.push(event), options);
  const has = (type, name) =>
    waitUntil(
      () => events.some((event) => event.type === type && event.name === name),
      `${type} of ${name}`,
    );
  return { handle, events, has };
}

covers(["Filesystem.watchDir"], "an upload of a new file is three events", async () => {
  const { handle, events, has } = await watched("uploads");
  await file.box.files.write("uploads/new", "content");
  await has("write", "new");
  await file.box.files.write("uploads/last", "content");
  await has("write", "last");
  const ofNew = events.filter((event) => event.name === "new").map((event) => event.type);
  assert.deepEqual(ofNew, ["create", "chmod", "write"]);
  await handle.stop();
});

covers(["Filesystem.watchDir"], "every kind of event", async () => {
  const { handle, has } = await watched("kinds");
  const { commands } = file.box;
  await commands.run("cd kinds; echo x > a; chmod 600 a; mv a b; rm b; mkdir c");
  await has("create", "a");
  await has("write", "a");
  await has("chmod", "a");
  await has("rename", "a");
  await has("create", "b");
  await has("remove", "b");
  await has("create", "c");
  await handle.stop();
});

covers(["Filesystem.watchDir"], "directories below, those made later too", async () => {
  const { handle, has } = await watched("deep", { recursive: true });
  await file.box.files.makeDir("deep/one/two");
  await has("create", "one");
  await file.box.files.write("deep/one/two/file", "x");
  await has("write", "one/two/file");
  await handle.stop();
});

covers(["Filesystem.watchDir"], "not below unless asked", async () => {
  await file.box.files.makeDir("flat/below");
  const { handle, events, has } = await watched("flat");
  await file.box.files.write("flat/below/unseen", "x");
  await file.box.files.write("flat/seen", "x");
  await has("write", "seen");
  assert.equal(events.some((event) => event.name.includes("unseen")), false);
  await handle.stop();
});

covers(["Filesystem.watchDir"], "the entry comes with the event", async () => {
  const { handle, events, has } = await watched("entries", { includeEntry: true });
  await file.box.files.write("entries/file", "content");
  await has("write", "file");
  const { entry } = events.find((event) => event.type === "write");
  assert.deepEqual([entry.path, entry.size, entry.owner], ["/home/user/entries/file", 7, "user"]);
  await handle.stop();
});

covers(["WatchHandle.stop"], "a watch that is stopped says so and stays silent", async () => {
  let ended = 0;
  const { handle, events, has } = await watched("stopped", { onExit: () => ended++ });
  await file.box.files.write("stopped/before", "x");
  await has("write", "before");
  await handle.stop();
  await waitUntil(() => ended === 1, "onExit was called");
  const seen = events.length;
  await file.box.files.write("stopped/after", "x");
  const another = await watched("stopped");
  await file.box.files.write("stopped/last", "x");
  await another.has("write", "last");
  await another.handle.stop();
  assert.equal(events.length, seen);
});

coversError(TimeoutError, ["Filesystem.watchDir"], "a watch's time limit", async () => {
  const exits = [];
  const options = { timeoutMs: TIME_TO_START, onExit: (error) => exits.push(error) };
  await watched("limited", options);
  await waitUntil(() => exits.length === 1, "onExit was called");
  assert.ok(exits[0] instanceof TimeoutError, String(exits[0]));
});

coversError(FileNotFoundError, ["Filesystem.watchDir"], "a directory not there", () =>
  assert.rejects(file.box.files.watchDir("/no/such", () => {}), FileNotFoundError),
);

coversError(InvalidArgumentError, ["Filesystem.watchDir"], "no directory", async () => {
  await file.box.files.write("plain", "x");
  await assert.rejects(file.box.files.watchDir("plain", () => {}), InvalidArgumentError);
});

coversError(AuthenticationError, ["Filesystem.watchDir"], "a user not there", () =>
  assert.rejects(
    file.box.files.watchDir("/tmp", () => {}, { user: "nobody-here" }),
    AuthenticationError,
  ),
);
