// Notes which methods of the package a test calls, so that it can claim no others.
import * as e2b from "e2b";
import { surface } from "./surface.js";

/** The methods called since this was last emptied, as "Class.method". */
export const called = new Set();

const methodsOf = Map.groupBy(surface(), (entry) => entry.class);
const watched = new Set();

// Its handles become known only when a method returns the first one.
const RETURNED = new Set([
  "CommandHandle",
  "WatchHandle",
  "SandboxPaginator",
  "SnapshotPaginator",
  "SecretPaginator",
]);

function watch(name, target) {
  if (watched.has(target)) return;
  watched.add(target);
  for (const { method } of methodsOf.get(name)) {
    const descriptor = Object.getOwnPropertyDescriptor(target, method);
    if (typeof descriptor?.value === "function") {
      Object.defineProperty(target, method, {
        ...descriptor,
        value: noting(`${name}.${method}`, descriptor.value),
      });
    }
  }
}

function noting(method, original) {
  return function (...given) {
    called.add(method);
    const result = Reflect.apply(original, this, given);
    return result instanceof Promise ? result.then(watchReturned) : watchReturned(result);
  };
}

function watchReturned(result) {
  const name = result?.constructor?.name;
  if (RETURNED.has(name)) watch(name, Object.getPrototypeOf(result));
  return result;
}

const offline = new e2b.Sandbox({ sandboxId: "none", envdVersion: "0.6.13" });
watch("Sandbox", e2b.Sandbox);
watch("Sandbox", Object.getPrototypeOf(e2b.Sandbox));
watch("Sandbox", e2b.Sandbox.prototype);
watch("Commands", Object.getPrototypeOf(offline.commands));
watch("Pty", Object.getPrototypeOf(offline.pty));
watch("Filesystem", Object.getPrototypeOf(offline.files));
watch("Git", Object.getPrototypeOf(offline.git));
watch("Template", e2b.TemplateBase);
watch("TemplateBuilder", e2b.TemplateBase.prototype);
watch("Volume", e2b.Volume);
watch("Volume", e2b.Volume.prototype);
watch("Secret", e2b.Secret);
