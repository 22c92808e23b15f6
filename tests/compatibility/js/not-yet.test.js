// What comes later fails at once, with the error that the package has for it.
import assert from "node:assert/strict";
import {
  BuildError,
  Sandbox,
  SandboxError,
  Secret,
  SecretError,
  Template,
  TemplateError,
  Volume,
  VolumeError,
  waitForPort,
} from "e2b";
import { assertNotYet, covers, coversError, coversNotYet } from "./support/covering.js";
import { sandboxOfThisFile } from "./support/sandbox.js";

const BUILD = { templateId: "emberboxbasetemplate", buildId: crypto.randomUUID() };

const file = sandboxOfThisFile();

coversError(SandboxError, ["Sandbox.create"], "options of create that come later", async () => {
  for (const options of [
    { network: { allowOut: ["api.example"], denyOut: ["0.0.0.0/0"] } },
    { network: { egressProxy: { address: "proxy.example:1080" } } },
    { volumeMounts: { "/mnt": "volume" } },
  ]) {
    await assertNotYet(SandboxError, Sandbox.create(options));
  }
});

coversNotYet(["Secret.fill", "Secret.iamToken"], "what uses secrets and identities", async () => {
  const headers = { authorization: Secret.fill("key") };
  const rules = { "api.example": [{ transform: { headers } }] };
  await assertNotYet(SandboxError, Sandbox.create({ network: { rules } }));
  const token = Secret.iamToken({ audience: "some.example", tokenType: "JWT-SVID" });
  await assertNotYet(SandboxError, Sandbox.create({ iam: { tokens: { some: token } } }));
});

coversNotYet(
  [
    "Secret.create",
    "Secret.update",
    "Secret.getInfo",
    "Secret.list",
    "Secret.exists",
    "Secret.destroy",
    "SecretPaginator.nextItems",
  ],
  "secrets",
  async () => {
    await assertNotYet(SecretError, Secret.create("key", "value"));
    await assertNotYet(SecretError, Secret.update("key", "value"));
    await assertNotYet(SecretError, Secret.getInfo("key"));
    await assertNotYet(SecretError, Secret.list().nextItems());
    await assertNotYet(SecretError, Secret.exists("key"));
    await assertNotYet(SecretError, Secret.destroy("key"));
  },
);

coversNotYet(
  ["Volume.create", "Volume.connect", "Volume.getInfo", "Volume.list", "Volume.destroy"],
  "volumes",
  async () => {
    await assertNotYet(VolumeError, Volume.create("kept"));
    await assertNotYet(VolumeError, Volume.connect("some-id"));
    await assertNotYet(VolumeError, Volume.getInfo("some-id"));
    await assertNotYet(VolumeError, Volume.list());
    await assertNotYet(VolumeError, Volume.destroy("some-id"));
  },
);

coversNotYet(
  [
    "Volume.list",
    "Volume.makeDir",
    "Volume.getInfo",
    "Volume.exists",
    "Volume.updateMetadata",
    "Volume.readFile",
    "Volume.writeFile",
    "Volume.remove",
  ],
  "contents of volumes",
  async () => {
    const volume = new Volume("some-id", "kept", "token");
    const to = { apiUrl: process.env.E2B_API_URL };
    await assertNotYet(VolumeError, volume.list("/", to));
    await assertNotYet(VolumeError, volume.makeDir("/d", to));
    await assertNotYet(VolumeError, volume.getInfo("/d", to));
    await assertNotYet(VolumeError, volume.exists("/d", to));
    await assertNotYet(VolumeError, volume.updateMetadata("/d", { mode: 0o700 }, to));
    await assertNotYet(VolumeError, volume.readFile("/f", to));
    await assertNotYet(VolumeError, volume.writeFile("/f", "content", to));
    await assertNotYet(VolumeError, volume.remove("/f", to));
  },
);

coversNotYet(
  [
    "Template.exists",
    "Template.aliasExists",
    "Template.assignTags",
    "Template.removeTags",
    "Template.getTags",
  ],
  "names and tags of templates",
  async () => {
    await assertNotYet(TemplateError, Template.exists("team/own"));
    await assertNotYet(TemplateError, Template.aliasExists("own"));
    await assertNotYet(TemplateError, Template.assignTags("own:default", ["a", "b"]));
    await assertNotYet(TemplateError, Template.removeTags("own", "a"));
    await assertNotYet(TemplateError, Template.getTags("team/own"));
  },
);

coversNotYet(
  ["Template.build", "Template.buildInBackground", "Template.getBuildStatus"],
  "building templates",
  async () => {
    const template = Template().fromBaseImage().runCmd("true");
    await assertNotYet(BuildError, Template.build(template, "own"));
    await assertNotYet(BuildError, Template.buildInBackground(template, "own:tag"));
    await assertNotYet(BuildError, Template.getBuildStatus(BUILD));
  },
);

covers(["Template.toJSON", "Template.toDockerfile"], "a template written down", async () => {
  const template = Template().fromImage("debian:12").runCmd("true");
  assert.equal(JSON.parse(await Template.toJSON(template)).fromImage, "debian:12");
  assert.match(Template.toDockerfile(template), /^FROM debian:12\nRUN true/);
});

const BASES = {
  fromDebianImage: [],
  fromUbuntuImage: [],
  fromFedoraImage: [],
  fromAlpineImage: [],
  fromArchImage: [],
  fromPythonImage: [],
  fromNodeImage: [],
  fromBunImage: [],
  fromBaseImage: [],
  fromImage: ["debian:12", { username: "me", password: "secret" }],
  fromTemplate: ["base"],
  fromDockerfile: ["FROM debian:12\nRUN true"],
  fromAWSRegistry: ["an/image", { accessKeyId: "a", secretAccessKey: "b", region: "c" }],
  fromGCPRegistry: ["an/image", { serviceAccountJSON: {} }],
};

coversNotYet(namesOf(BASES), "a template from anything", async () => {
  for (const [method, given] of Object.entries(BASES)) {
    const template = Template()[method](...given);
    await assertNotYet(BuildError, Template.build(template, "own"));
  }
});

const STEPS = {
  copy: ["package.json", "/"],
  copyItems: [[{ src: "package.json", dest: "/" }]],
  remove: ["/tmp/x"],
  rename: ["/tmp/x", "/tmp/y"],
  makeDir: ["/tmp/d"],
  makeSymlink: ["/tmp/x", "/tmp/l"],
  runCmd: ["true"],
  setWorkdir: ["/tmp"],
  setUser: ["root"],
  pipInstall: ["numpy"],
  npmInstall: ["left-pad"],
  bunInstall: ["left-pad"],
  aptInstall: ["curl"],
  gitClone: ["/tmp/repository"],
  setEnvs: [{ A: "b" }],
  skipCache: [],
  setStartCmd: ["sleep 1", waitForPort(80)],
  setReadyCmd: ["true"],
};

coversNotYet(namesOf(STEPS), "a template with any step", async () => {
  for (const [method, given] of Object.entries(STEPS)) {
    const template = Template({ fileContextPath: import.meta.dirname }).fromBaseImage();
    await assertNotYet(BuildError, Template.build(template[method](...given), "own"));
  }
});

const STEPS_OF_TEMPLATES = {
  addMcpServer: ["mcp-gateway", ["exa"]],
  betaDevContainerPrebuild: ["devcontainer", ["/work"]],
  betaSetDevContainerStart: ["devcontainer", ["/work"]],
};

coversNotYet(namesOf(STEPS_OF_TEMPLATES), "steps that need a certain template", async () => {
  for (const [method, [base, given]] of Object.entries(STEPS_OF_TEMPLATES)) {
    const template = Template().fromTemplate(base)[method](...given);
    await assertNotYet(BuildError, Template.build(template, "own"));
  }
});

function namesOf(methods) {
  return Object.keys(methods).map((method) => `TemplateBuilder.${method}`);
}
