// The git helper, against repositories inside the sandbox.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import {
  CommandExitError,
  GitAuthError,
  GitUpstreamError,
  InvalidArgumentError,
} from "e2b";
import { covers, coversError } from "./support/covering.js";
import { sandboxOfThisFile, waitUntil } from "./support/sandbox.js";

const SERVER = readFileSync(new URL("../../git_server.py", import.meta.url), "utf8");
const USER = "somebody";
const PASSWORD = "p@ss word";
const WORK = "/home/user/work";
const BARE = "/home/user/served/bare.git";

const file = sandboxOfThisFile({}, async () => {
  await makeRepositories();
  await startServer();
});
const git = () => file.box.git;
const shell = async (command) => (await file.box.commands.run(command)).stdout.trim();
const commitFile = async (path, name) => {
  await file.box.files.write(`${path}/${name}`, name);
  await git().add(path);
  await git().commit(path, `Add ${name}`);
};

// A repository with one commit, and a bare one that it was pushed to.
async function makeRepositories() {
  await git().configureUser("Some Body", "some@body.example");
  await git().init(WORK, { initialBranch: "main" });
  await git().init(BARE, { bare: true, initialBranch: "main" });
  await commitFile(WORK, "first");
  await git().remoteAdd(WORK, "origin", BARE);
  await git().push(WORK, { remote: "origin", branch: "main" });
}

// The same repository over HTTP, for one user alone.
async function startServer() {
  let printed = "";
  await file.box.files.write("git_server.py", SERVER);
  await shell(`git -C ${BARE} config http.receivepack true`);
  await file.box.commands.run(`exec python3 git_server.py served ${USER} '${PASSWORD}'`, {
    background: true,
    timeoutMs: 0,
    onStdout: (text) => (printed += text),
  });
  await waitUntil(() => printed.endsWith("\n"), "the server says its port");
  file.host = `127.0.0.1:${printed.trim()}`;
  file.guarded = `http://${file.host}/bare.git`;
}

covers(
  ["Git.configureUser", "Git.setConfig", "Git.getConfig"],
  "configuration in its scopes",
  async () => {
    await git().configureUser("Some Body", "some@body.example");
    assert.equal(await git().getConfig("user.name"), "Some Body");
    assert.equal(await git().getConfig("user.email"), "some@body.example");
    const local = { scope: "local", path: WORK };
    await git().setConfig("pull.rebase", "false", local);
    assert.equal(await git().getConfig("pull.rebase", local), "false");
    assert.equal(await git().getConfig("pull.rebase"), undefined);
  },
);

covers(["Git.init", "Git.add", "Git.commit", "Git.status"], "a first commit", async () => {
  const path = "/home/user/fresh";
  await git().init(path, { initialBranch: "trunk" });
  await file.box.files.write(`${path}/file`, "x");
  const untracked = await git().status(path);
  assert.equal(untracked.currentBranch, "trunk");
  assert.deepEqual([untracked.isClean, untracked.hasUntracked], [false, true]);
  await git().add(path, { files: ["file"] });
  const [staged] = (await git().status(path)).fileStatus;
  assert.deepEqual([staged.name, staged.status, staged.staged], ["file", "added", true]);
  const author = { authorName: "An Other", authorEmail: "an@other.example" };
  await git().commit(path, "It's the first", author);
  assert.equal(await shell(`git -C ${path} log -1 --format='%an %ae %s'`),
    "An Other an@other.example It's the first");
  await git().commit(path, "Nothing", { allowEmpty: true });
  assert.equal((await git().status(path)).isClean, true);
});

covers(
  ["Git.branches", "Git.createBranch", "Git.checkoutBranch", "Git.deleteBranch"],
  "branches come and go",
  async () => {
    await git().createBranch(WORK, "topic/é");
    const names = await git().branches(WORK);
    assert.deepEqual(names, { branches: ["main", "topic/é"], currentBranch: "topic/é" });
    await git().checkoutBranch(WORK, "main");
    await git().deleteBranch(WORK, "topic/é");
    assert.deepEqual((await git().branches(WORK)).branches, ["main"]);
    await git().createBranch(WORK, "unmerged");
    await git().commit(WORK, "Only here", { allowEmpty: true });
    await git().checkoutBranch(WORK, "main");
    await git().deleteBranch(WORK, "unmerged", { force: true });
  },
);

covers(["Git.reset", "Git.restore"], "changes are taken back", async () => {
  const path = `${WORK}/first`;
  await file.box.files.write(path, "changed");
  await git().add(WORK);
  await git().restore(WORK, { paths: ["first"], staged: true });
  assert.equal((await git().status(WORK)).hasStaged, false);
  await git().restore(WORK, { paths: ["first"] });
  assert.equal(await file.box.files.read(path), "first");
  await file.box.files.write(path, "changed again");
  await git().reset(WORK, { mode: "hard", target: "HEAD" });
  assert.equal((await git().status(WORK)).isClean, true);
});

covers(["Git.remoteAdd", "Git.remoteGet"], "remotes", async () => {
  await git().remoteAdd(WORK, "more", BARE, { fetch: true });
  assert.equal(await git().remoteGet(WORK, "more"), BARE);
  await git().remoteAdd(WORK, "more", `${BARE}/`, { overwrite: true });
  assert.equal(await git().remoteGet(WORK, "more"), `${BARE}/`);
  assert.equal(await git().remoteGet(WORK, "none"), undefined);
  await shell(`git -C ${WORK} remote remove more`);
});

covers(["Git.clone", "Git.push", "Git.pull", "Git.status"], "between clones", async () => {
  const clone = "/home/user/clone";
  await git().clone(BARE, { path: clone, branch: "main", depth: 1 });
  await commitFile(clone, "second");
  assert.equal((await git().status(clone)).ahead, 1);
  await git().push(clone);
  await git().pull(WORK);
  assert.equal(await file.box.files.read(`${WORK}/second`), "second");
  const status = await git().status(WORK);
  assert.deepEqual([status.upstream, status.ahead, status.behind], ["origin/main", 0, 0]);
});

covers(["Git.clone", "Git.push", "Git.pull"], "with a password that is not kept", async () => {
  const path = "/home/user/guarded";
  const credentials = { username: USER, password: PASSWORD };
  await git().clone(file.guarded, { path, ...credentials });
  assert.equal(await git().remoteGet(path, "origin"), file.guarded);
  await commitFile(path, "third");
  await git().push(path, { remote: "origin", branch: "main", ...credentials });
  await git().pull(path, credentials);
  assert.equal(await git().remoteGet(path, "origin"), file.guarded);
  assert.match(await shell(`git -C ${BARE} log -1 --format=%s`), /third/);
});

coversError(GitAuthError, ["Git.clone", "Git.push", "Git.pull"], "without a password", async () => {
  const path = "/home/user/refused";
  await assert.rejects(git().clone(file.guarded, { path }), GitAuthError);
  const wrong = { username: USER, password: "wrong" };
  await assert.rejects(git().clone(file.guarded, { path, ...wrong }), GitAuthError);
  await git().clone(BARE, { path });
  await git().remoteAdd(path, "origin", file.guarded, { overwrite: true });
  await assert.rejects(git().push(path, { remote: "origin", branch: "main" }), GitAuthError);
  await assert.rejects(git().pull(path), GitAuthError);
});

covers(["Git.dangerouslyAuthenticate"], "with a password that is kept", async () => {
  const where = { host: file.host, protocol: "http" };
  const credentials = { username: USER, password: PASSWORD, ...where };
  await git().dangerouslyAuthenticate(credentials);
  await git().clone(file.guarded, { path: "/home/user/trusted" });
  assert.equal(await file.box.files.exists("/home/user/trusted/first"), true);
});

coversError(GitUpstreamError, ["Git.push", "Git.pull"], "no upstream", async () => {
  const path = "/home/user/alone";
  await git().init(path, { initialBranch: "main" });
  await commitFile(path, "file");
  await git().remoteAdd(path, "origin", BARE);
  await assert.rejects(git().push(path, { setUpstream: false }), GitUpstreamError);
  await assert.rejects(git().pull(path), GitUpstreamError);
});

const NOWHERE = "/home/user/nowhere";

coversError(
  CommandExitError,
  [
    "Git.clone",
    "Git.init",
    "Git.remoteAdd",
    "Git.status",
    "Git.branches",
    "Git.createBranch",
    "Git.checkoutBranch",
    "Git.deleteBranch",
    "Git.add",
    "Git.commit",
    "Git.reset",
    "Git.restore",
    "Git.push",
    "Git.pull",
    "Git.setConfig",
  ],
  "what git refuses",
  async () => {
    const refused = (call) => assert.rejects(call, CommandExitError);
    await refused(git().clone(NOWHERE, { path: `${NOWHERE}/clone` }));
    await refused(git().init("/proc/no-repository"));
    await refused(git().remoteAdd(WORK, "origin", BARE));
    await refused(git().status(NOWHERE));
    await refused(git().branches(NOWHERE));
    await refused(git().createBranch(WORK, "main"));
    await refused(git().checkoutBranch(WORK, "no-such"));
    await refused(git().deleteBranch(WORK, "no-such"));
    await refused(git().add(WORK, { files: ["no-such"] }));
    await refused(git().commit(WORK, "Nothing to commit"));
    await refused(git().reset(WORK, { target: "no-such" }));
    await refused(git().restore(WORK, { paths: ["no-such"] }));
    await refused(git().push(WORK, { remote: "no-such", branch: "main" }));
    await refused(git().pull(WORK, { remote: "no-such", branch: "main" }));
    await refused(git().setConfig("no-section", "x"));
  },
);

coversError(
  InvalidArgumentError,
  [
    "Git.clone",
    "Git.remoteAdd",
    "Git.remoteGet",
    "Git.reset",
    "Git.restore",
    "Git.push",
    "Git.pull",
    "Git.setConfig",
    "Git.getConfig",
    "Git.configureUser",
    "Git.dangerouslyAuthenticate",
  ],
  "what the package itself refuses",
  async () => {
    const refused = (call) => assert.rejects(call, InvalidArgumentError);
    await refused(git().clone(file.guarded, { password: "x" }));
    await refused(git().remoteAdd(WORK, "", BARE));
    await refused(git().remoteGet(WORK, ""));
    await refused(git().reset(WORK, { mode: "wrong" }));
    await refused(git().restore(WORK, { paths: [] }));
    await refused(git().push(WORK, { password: "x" }));
    await refused(git().pull(WORK, { password: "x" }));
    await refused(git().setConfig("", "x"));
    await refused(git().getConfig("a.b", { scope: "local" }));
    await refused(git().configureUser("", ""));
    await refused(git().dangerouslyAuthenticate({ username: "", password: "" }));
  },
);
