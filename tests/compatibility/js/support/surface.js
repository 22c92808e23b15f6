// The public methods of the installed `e2b`, as its own type declarations say, and their groups.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import * as e2b from "e2b";

const ENTRY = fileURLToPath(import.meta.resolve("e2b"));
const DECLARATIONS = readFileSync(ENTRY.replace(/\.m?js$/, ".d.ts"), "utf8");

// Sandbox inherits its static methods from a class that is not exported.
const DECLARED_BY = {
  Sandbox: ["Sandbox", "SandboxApi"],
  SandboxPaginator: ["SandboxPaginator"],
  Commands: ["Commands"],
  CommandHandle: ["CommandHandle"],
  Pty: ["Pty"],
  Filesystem: ["Filesystem"],
  WatchHandle: ["WatchHandle"],
  Git: ["Git"],
  SnapshotPaginator: ["SnapshotPaginator"],
  Volume: ["Volume"],
  Secret: ["Secret"],
  SecretPaginator: ["SecretPaginator"],
};

const GROUP_OF_CLASS = {
  Sandbox: "L",
  SandboxPaginator: "L",
  Commands: "process",
  CommandHandle: "process",
  Pty: "pty",
  Filesystem: "filesystem",
  WatchHandle: "filesystem",
  Git: "git",
  SnapshotPaginator: "S",
  Template: "T",
  TemplateBuilder: "T",
  Volume: "V",
  Secret: "X",
  SecretPaginator: "X",
  E2B: "client",
};

// Those that belong elsewhere than their class.
const GROUP_OF_METHOD = {
  "Filesystem.read": "files",
  "Filesystem.write": "files",
  "Filesystem.writeFiles": "files",
  "Sandbox.betaPause": "S",
  "Sandbox.createSnapshot": "S",
  "Sandbox.deleteSnapshot": "S",
  "Sandbox.downloadUrl": "files",
  "Sandbox.fork": "S",
  "Sandbox.getHost": "proxy",
  "Sandbox.getMcpToken": "MCP",
  "Sandbox.getMcpUrl": "MCP",
  "Sandbox.getMetrics": "M",
  "Sandbox.listSnapshots": "S",
  "Sandbox.pause": "S",
  "Sandbox.updateNetwork": "N",
  "Sandbox.uploadUrl": "files",
};

export function groupOf(method) {
  return GROUP_OF_METHOD[method] ?? GROUP_OF_CLASS[method.split(".")[0]];
}

/** Every public method as `{class, method}`, static and instance ones of a name together. */
export function surface() {
  const template = declaredMethods("TemplateBase");
  const all = [
    ...Object.entries(DECLARED_BY).flatMap(([name, declared]) =>
      named(name, declared.flatMap(declaredMethods)),
    ),
    ...named("Template", template.filter((method) => method.isStatic)),
    ...named("TemplateBuilder", template.filter((method) => !method.isStatic)),
    ...named("E2B", Object.keys(new e2b.E2B()).filter(isClass).map((name) => ({ name }))),
  ];
  return [...new Map(all.map((entry) => [`${entry.class}.${entry.method}`, entry])).values()];
}

const named = (name, methods) => methods.map((method) => ({ class: name, method: method.name }));

const isClass = (name) => /^[A-Z]/.test(name);

function declaredMethods(name) {
  const declaration = new RegExp(`^declare class ${name} [^\\n]*\\{\\n(.*?)^\\}`, "ms");
  const body = DECLARATIONS.match(declaration);
  if (!body) throw new Error(`e2b declares no class ${name}: bring DECLARED_BY up to date`);
  // `private` and `protected` members, accessors and properties do not match.
  return [...body[1].matchAll(/^  (static )?(\w+)(?:<[^(]*>)?\(/gm)]
    .map(([, isStatic, method]) => ({ name: method, isStatic: Boolean(isStatic) }))
    .filter((method) => method.name !== "constructor");
}
