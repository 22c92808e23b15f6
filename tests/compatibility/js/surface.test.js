// The methods that the package offers: each must have a test, which scripts/compat_table.py checks.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import test from "node:test";
import * as e2b from "e2b";
import { groupOf, surface } from "./support/surface.js";

const offline = new e2b.Sandbox({ sandboxId: "none", envdVersion: "0.6.13" });

const HOLDERS = {
  Sandbox: [e2b.Sandbox, offline],
  SandboxPaginator: [e2b.Sandbox.list()],
  Commands: [offline.commands],
  Pty: [offline.pty],
  Filesystem: [offline.files],
  Git: [offline.git],
  SnapshotPaginator: [e2b.Sandbox.listSnapshots()],
  Template: [e2b.Template],
  TemplateBuilder: [e2b.Template()],
  Volume: [e2b.Volume, e2b.Volume.prototype],
  Secret: [e2b.Secret],
  SecretPaginator: [e2b.Secret.list()],
  E2B: [new e2b.E2B()],
};

test("what is declared is there", () => {
  const missing = surface()
    .filter((entry) => entry.class in HOLDERS)
    .filter((entry) => !HOLDERS[entry.class].some((holder) => entry.method in holder));
  assert.deepEqual(missing, []);
});

test("every method has a group", () => {
  assert.deepEqual(surface().filter((entry) => !groupOf(`${entry.class}.${entry.method}`)), []);
});

test("the list is left for the table", () => {
  assert.ok(surface().length > 120, "the declarations were not understood");
  const results = process.env.EMBERBOX_COMPAT_RESULTS;
  if (results) writeFileSync(`${results}.surface.javascript`, JSON.stringify(surface()));
});
