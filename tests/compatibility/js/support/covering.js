// Tests that say which methods they are about; the results go where EMBERBOX_COMPAT_RESULTS says.
import assert from "node:assert/strict";
import { appendFileSync } from "node:fs";
import test from "node:test";
import { called } from "./calls.js";
import { groupOf } from "./surface.js";

const SECONDS = 120;

/** The test calls these methods ("Sandbox.create") and checks their normal results. */
export function covers(methods, title, body) {
  covering(methods, "normal result", title, body);
}

/** The test makes each of these methods throw the error. */
export function coversError(error, methods, title, body) {
  covering(methods, `error: ${error.name}`, title, body);
}

/** The test sees each of these methods, which come later, fail with a clear typed error. */
export function coversNotYet(methods, title, body) {
  covering(methods, "not yet", title, body);
}

/** A method that comes later fails so; a hang would end in an error of another kind. */
export function assertNotYet(error, call) {
  return assert.rejects(call, (thrown) => {
    assert.ok(thrown instanceof error, `${thrown} is no ${error.name}`);
    assert.match(thrown.message, /^501: .*not available/);
    return true;
  });
}

function covering(methods, kind, title, body) {
  test(title, { timeout: SECONDS * 1000 }, async (context) => {
    let passed = false;
    // Also after a time limit, which does not end the body.
    context.after(() => methods.forEach((method) => record(method, kind, passed)));
    called.clear();
    await body(context);
    const missing = methods.filter(isUncalled);
    assert.deepEqual(missing, [], "the test is about these methods and does not call them");
    passed = true;
  });
}

// The classes of a client are no methods, so nothing notes their use.
const isUncalled = (method) => !method.startsWith("E2B.") && !called.has(method);

function record(method, kind, passed) {
  const results = process.env.EMBERBOX_COMPAT_RESULTS;
  if (!results) return;
  const outcome = passed ? "passed" : "failed";
  const about = { sdk: "javascript", group: groupOf(method), method, flavour: "" };
  const line = { ...about, case: kind, outcome };
  appendFileSync(results, `${JSON.stringify(line)}\n`);
}
