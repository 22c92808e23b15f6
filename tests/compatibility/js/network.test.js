// Networks of sandboxes. Whether names are resolved tells what holds: there may be no internet.
import assert from "node:assert/strict";
import { ALL_TRAFFIC, Sandbox, SandboxError, SandboxNotFoundError } from "e2b";
import { covers, coversError } from "./support/covering.js";
import { NO_SANDBOX, sandboxOfThisFile } from "./support/sandbox.js";

const NETWORK = {
  allowOut: ["192.0.2.1"],
  denyOut: ({ allTraffic }) => [allTraffic],
  maskRequestHost: "app.example:${PORT}",
  allowPublicTraffic: false,
};

const file = sandboxOfThisFile();

async function hasNames(box) {
  const probe = "timeout 5 bash -c '</dev/tcp/169.254.0.22/53' 2>/dev/null && echo yes || echo no";
  return (await box.commands.run(probe)).stdout === "yes\n";
}

covers(["Sandbox.create", "Sandbox.getInfo"], "a network that was asked for", async () => {
  const box = await Sandbox.create({ timeoutMs: 60_000, network: NETWORK });
  try {
    const { network } = await box.getInfo();
    const told = JSON.parse(JSON.stringify(network)); // without what is undefined
    assert.deepEqual(told, { ...NETWORK, denyOut: [ALL_TRAFFIC] });
  } finally {
    await box.kill();
  }
});

covers(["Sandbox.updateNetwork"], "changing the network", async () => {
  const { box } = file;
  assert.equal(await hasNames(box), true);
  await box.updateNetwork({ denyOut: [ALL_TRAFFIC] });
  assert.equal(await hasNames(box), false);
  assert.deepEqual((await box.getInfo()).network.denyOut, [ALL_TRAFFIC]);
  await Sandbox.updateNetwork(box.sandboxId, {});
  assert.equal(await hasNames(box), true);
});

coversError(SandboxError, ["Sandbox.updateNetwork"], "networks that cannot be", async () => {
  for (const [network, message] of [
    [{ denyOut: ["example.com"] }, /^400: invalid denied CIDR example.com/],
    [{ allowOut: ["1.2.3.4/99"] }, /^400: invalid allowed address 1.2.3.4/],
    [{ allowOut: ["example.com"] }, /^400: When specifying allowed domains in allow out/],
    [{ allowOut: ["example.com"], denyOut: [ALL_TRAFFIC] }, /^501: network.allowOut with a domain/],
  ]) {
    await assert.rejects(file.box.updateNetwork(network), { name: "SandboxError", message });
  }
});

coversError(SandboxNotFoundError, ["Sandbox.updateNetwork"], "the network of nothing", async () => {
  await assert.rejects(Sandbox.updateNetwork(NO_SANDBOX, {}), SandboxNotFoundError);
});
