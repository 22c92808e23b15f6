// One sandbox for all tests of a file.
import { after, before } from "node:test";
import { Sandbox } from "e2b";

export const NO_SANDBOX = "i00000000000000000000";

/** A time limit, in milliseconds, within which something begins even on a busy machine. */
export const TIME_TO_START = 5_000;

/** An object whose `box` is the file's sandbox once the tests run, prepared when asked for. */
export function sandboxOfThisFile(options = {}, prepare = async () => {}) {
  const holder = { box: undefined };
  before(async () => {
    holder.box = await Sandbox.create({ timeoutMs: 900_000, ...options });
    await prepare();
  });
  after(() => holder.box?.kill());
  return holder;
}

/** Looks until it is so. */
export async function waitUntil(condition, what, seconds = 30) {
  const deadline = performance.now() + seconds * 1000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`still not so: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
