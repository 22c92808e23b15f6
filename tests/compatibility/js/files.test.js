// Files and directories of a sandbox.
import assert from "node:assert/strict";
import {
  AuthenticationError,
  FileNotFoundError,
  InvalidArgumentError,
  NotEnoughSpaceError,
  Sandbox,
  SandboxError,
} from "e2b";
import { covers, coversError } from "./support/covering.js";
import { sandboxOfThisFile } from "./support/sandbox.js";

const BYTES = Uint8Array.from({ length: 256 }, (_, index) => index);

const file = sandboxOfThisFile();
const bytesOf = async (source) => new Uint8Array(await new Response(source).arrayBuffer());

covers(["Filesystem.write", "Filesystem.read"], "every form of content", async () => {
  const { files } = file.box;
  const contents = {
    text: ["é ü 🔥\n", new TextEncoder().encode("é ü 🔥\n")],
    buffer: [BYTES.buffer, BYTES],
    blob: [new Blob([BYTES]), BYTES],
    stream: [new Blob([BYTES]).stream(), BYTES],
    empty: ["", new Uint8Array()],
  };
  for (const [name, [given, kept]] of Object.entries(contents)) {
    const info = await files.write(`forms/${name}`, given);
    assert.deepEqual([info.name, info.type], [name, "file"]);
    assert.equal(info.path, `/home/user/forms/${name}`);
    assert.deepEqual(await files.read(info.path, { format: "bytes" }), kept, name);
    assert.deepEqual(await bytesOf(await files.read(info.path, { format: "blob" })), kept);
    assert.deepEqual(await bytesOf(await files.read(info.path, { format: "stream" })), kept);
  }
  assert.equal(await files.read("forms/text"), "é ü 🔥\n");
  await files.write("forms/text", "shorter");
  assert.equal(await files.read("forms/text"), "shorter");
});

covers(["Filesystem.write", "Filesystem.read"], "ways of transfer", async () => {
  const { files } = file.box;
  for (const options of [{ gzip: true }, { useOctetStream: true }, { useOctetStream: false }]) {
    const text = `sent with ${JSON.stringify(options)}\n`.repeat(10_000);
    await files.write("ways", text, options);
    assert.equal(await files.read("ways"), text);
    assert.equal(await files.read("ways", { gzip: true }), text);
  }
});

covers(["Filesystem.write", "Filesystem.writeFiles"], "several files at once", async () => {
  const { files } = file.box;
  const entries = ["a", "b c", "d%22e"].map((name) => ({ path: `many/${name}`, data: name }));
  const paths = entries.map((entry) => `/home/user/${entry.path}`);
  for (const options of [{}, { useOctetStream: true }]) {
    const infos = await files.writeFiles(entries, options);
    assert.deepEqual(infos.map((info) => info.path), paths);
  }
  assert.deepEqual((await files.write(entries)).map((info) => info.path), paths);
  for (const { path, data } of entries) assert.equal(await files.read(path), data);
  assert.deepEqual(await files.writeFiles([]), []);
});

covers(
  ["Filesystem.write", "Filesystem.getInfo", "Filesystem.list", "Filesystem.rename"],
  "metadata of a file stays with it",
  async () => {
    const { files } = file.box;
    const written = await files.write("noted", "x", { metadata: { Author: "me", b: "2" } });
    const metadata = { author: "me", b: "2" };
    assert.deepEqual(written.metadata, metadata);
    assert.deepEqual((await files.getInfo("noted")).metadata, metadata);
    assert.deepEqual((await files.rename("noted", "renamed")).metadata, metadata);
    const listed = (await files.list("/home/user")).find((entry) => entry.name === "renamed");
    assert.deepEqual(listed.metadata, metadata);
    await files.write("renamed", "y");
    assert.equal((await files.getInfo("renamed")).metadata, undefined);
  },
);

covers(["Filesystem.getInfo", "Filesystem.exists"], "information about entries", async () => {
  const { files, commands } = file.box;
  await files.write("info/file", "content");
  await commands.run("chmod 640 info/file; ln -s file info/link; ln -s none info/dangling");
  const info = await files.getInfo("info/file");
  assert.deepEqual(
    [info.name, info.type, info.path, info.size, info.mode, info.permissions],
    ["file", "file", "/home/user/info/file", 7, 0o640, "-rw-r-----"],
  );
  assert.deepEqual([info.owner, info.group, info.symlinkTarget], ["user", "user", undefined]);
  assert.ok(info.modifiedTime instanceof Date);
  assert.equal((await files.getInfo("info")).type, "dir");
  const link = await files.getInfo("info/link");
  assert.deepEqual([link.type, link.symlinkTarget], ["file", "/home/user/info/file"]);
  assert.equal(await files.exists("info/file"), true);
  assert.equal(await files.exists("info"), true);
  assert.equal(await files.exists("info/none"), false);
});

covers(["Filesystem.makeDir", "Filesystem.list"], "directories, to a depth", async () => {
  const { files } = file.box;
  assert.equal(await files.makeDir("tree/a/b"), true);
  assert.equal(await files.makeDir("tree/a/b"), false);
  await files.write("tree/a/b/deep", "");
  const listed = async (depth) =>
    (await files.list("/home/user/tree", depth && { depth })).map((entry) => entry.path);
  const [a, b, deep] = ["a", "a/b", "a/b/deep"].map((path) => `/home/user/tree/${path}`);
  assert.deepEqual(await listed(), [a]);
  assert.deepEqual(await listed(2), [a, b]);
  assert.deepEqual(await listed(9), [a, b, deep]);
});

covers(["Filesystem.rename", "Filesystem.remove"], "moving and removing", async () => {
  const { files } = file.box;
  await files.write("from/file", "moved");
  const moved = await files.rename("from/file", "to/new/place");
  assert.deepEqual([moved.path, moved.type], ["/home/user/to/new/place", "file"]);
  assert.equal(await files.exists("from/file"), false);
  assert.equal(await files.read("to/new/place"), "moved");
  await files.remove("to");
  assert.equal(await files.exists("to"), false);
  await files.remove("to");
});

covers(
  ["Filesystem.write", "Filesystem.read", "Filesystem.makeDir", "Filesystem.list"],
  "as another user",
  async () => {
    const { files } = file.box;
    const options = { user: "root" };
    const { path } = await files.write("of-root", "secret", options);
    assert.equal(path, "/root/of-root");
    assert.equal(await files.read("of-root", options), "secret");
    await files.makeDir("directory", options);
    const owners = (await files.list("/root", options)).map((entry) => entry.owner);
    assert.deepEqual(new Set(owners), new Set(["root"]));
  },
);

covers(["Sandbox.uploadUrl", "Sandbox.downloadUrl"], "signed addresses", async () => {
  const form = (name) => {
    const body = new FormData();
    body.append("file", new Blob(["by address"]), name);
    return { method: "POST", body };
  };
  const upload = await file.box.uploadUrl("up/loaded", { useSignatureExpiration: 120 });
  assert.equal((await fetch(upload, form("ignored"))).status, 200);
  const anywhere = await file.box.uploadUrl();
  assert.equal((await fetch(anywhere, form("up/named"))).status, 200);
  for (const path of ["up/loaded", "up/named"]) {
    const answer = await fetch(await file.box.downloadUrl(path));
    assert.deepEqual([answer.status, await answer.text()], [200, "by address"]);
  }
  const asRoot = await file.box.uploadUrl("by-root", { user: "root" });
  assert.equal((await fetch(asRoot, form("ignored"))).status, 200);
  assert.equal(await file.box.files.read("/root/by-root", { user: "root" }), "by address");
});

covers(["Sandbox.downloadUrl"], "signed addresses that are refused", async () => {
  await file.box.files.write("signed", "x");
  const expired = await file.box.downloadUrl("signed", { useSignatureExpiration: -60 });
  const late = await fetch(expired);
  assert.equal(late.status, 401);
  assert.deepEqual(await late.json(), { code: 401, message: "signature is already expired" });
  const url = new URL(await file.box.downloadUrl("signed"));
  url.searchParams.set("path", "/etc/passwd");
  assert.notEqual((await fetch(url)).status, 200);
});

coversError(
  InvalidArgumentError,
  ["Sandbox.uploadUrl", "Sandbox.downloadUrl"],
  "an expiration without a token",
  async () => {
    const { sandboxId } = file.box;
    const open = new Sandbox({ sandboxId, envdVersion: "0.6.13" });
    const options = { useSignatureExpiration: 60 };
    await assert.rejects(open.uploadUrl("x", options), InvalidArgumentError);
    await assert.rejects(open.downloadUrl("x", options), InvalidArgumentError);
  },
);

coversError(
  FileNotFoundError,
  ["Filesystem.read", "Filesystem.list", "Filesystem.getInfo", "Filesystem.rename"],
  "what is not there",
  async () => {
    const { files } = file.box;
    for (const format of ["text", "bytes", "blob", "stream"]) {
      await assert.rejects(files.read("no/such", { format }), FileNotFoundError);
    }
    await assert.rejects(files.list("/no/such"), FileNotFoundError);
    await assert.rejects(files.getInfo("/no/such"), FileNotFoundError);
    await assert.rejects(files.rename("/no/such", "/no/more"), FileNotFoundError);
  },
);

coversError(
  FileNotFoundError,
  ["Sandbox.getMcpToken"],
  "a sandbox without an MCP gateway",
  () => assert.rejects(file.box.getMcpToken(), FileNotFoundError),
);

coversError(
  InvalidArgumentError,
  ["Filesystem.read", "Filesystem.write", "Filesystem.makeDir", "Filesystem.list"],
  "what is of another kind",
  async () => {
    const { files } = file.box;
    await files.write("plain", "x");
    await files.makeDir("directory");
    await assert.rejects(files.read("directory"), InvalidArgumentError);
    await assert.rejects(files.write("directory", "x"), InvalidArgumentError);
    await assert.rejects(files.makeDir("plain"), InvalidArgumentError);
    await assert.rejects(files.list("plain"), InvalidArgumentError);
    await assert.rejects(files.list("directory", { depth: 0 }), InvalidArgumentError);
  },
);

coversError(
  InvalidArgumentError,
  ["Filesystem.write", "Filesystem.writeFiles"],
  "metadata that no header can carry",
  async () => {
    const wrong = { metadata: { "a b": "c" } };
    await assert.rejects(file.box.files.write("x", "y", wrong), InvalidArgumentError);
    const entries = [{ path: "x", data: "y" }];
    await assert.rejects(file.box.files.writeFiles(entries, wrong), InvalidArgumentError);
  },
);

coversError(
  InvalidArgumentError,
  ["Filesystem.write"],
  "more metadata than a file keeps",
  async () => {
    const metadata = { key: "v".repeat(5_000) };
    await assert.rejects(file.box.files.write("x", "y", { metadata }), InvalidArgumentError);
  },
);

coversError(
  AuthenticationError,
  [
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
  "a user that is not there",
  async () => {
    const { files } = file.box;
    const options = { user: "nobody-here" };
    const refused = (call) => assert.rejects(call, AuthenticationError);
    await refused(files.read("x", options));
    await refused(files.write("x", "y", options));
    await refused(files.writeFiles([{ path: "x", data: "y" }], options));
    await refused(files.list("x", options));
    await refused(files.makeDir("x", options));
    await refused(files.rename("x", "y", options));
    await refused(files.remove("x", options));
    await refused(files.exists("x", options));
    await refused(files.getInfo("x", options));
  },
);

coversError(
  NotEnoughSpaceError,
  ["Filesystem.write", "Filesystem.writeFiles"],
  "a disk that is full",
  async () => {
    const { files, commands } = file.box;
    await files.makeDir("small");
    await commands.run("mount -t tmpfs -o size=64k,mode=777 none ~user/small", { user: "root" });
    const data = "x".repeat(200_000);
    for (const options of [{}, { useOctetStream: true }]) {
      await assert.rejects(files.write("small/file", data, options), NotEnoughSpaceError);
    }
    await assert.rejects(files.writeFiles([{ path: "small/f", data }]), NotEnoughSpaceError);
  },
);

coversError(SandboxError, ["Filesystem.remove"], "what cannot be removed", () =>
  assert.rejects(file.box.files.remove("/proc/version"), SandboxError),
);
