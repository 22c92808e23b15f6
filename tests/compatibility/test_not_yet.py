"""What comes later fails at once with a typed error that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import e2b
import pytest
from e2b import (
    BuildException,
    SandboxException,
    SecretException,
    TemplateException,
    VolumeException,
)

from scripts.compat_surface import CLASSES
from tests.compatibility.covering import covers, covers_not_yet
from tests.compatibility.flavours import CALLED, Awaited

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2b.template.main import TemplateBuilder

    from tests.compatibility.flavours import Sdk
    from tests.stack import Stack

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

REFUSED = r"501.*not available"


@pytest.fixture(autouse=True)
def _volumes_are_here(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2B_VOLUME_API_URL", stack.sdk["api_url"])


def each(table: dict[str, Callable[..., Any]]) -> pytest.MarkDecorator:
    """One test for each call; a name may stand for several methods."""
    return pytest.mark.parametrize(
        "call",
        [
            pytest.param(call, marks=covers_not_yet(*names.split()), id=names)
            for names, call in table.items()
        ],
    )


@pytest.mark.parametrize(
    "options",
    [
        {"network": {"allow_out": ["example.com"], "deny_out": [e2b.ALL_TRAFFIC]}},
        {"network": {"egress_proxy": {"address": "proxy.example.com:1080"}}},
        {"network": {"rules": {"example.com": [{"transform": {"headers": {"a": "b"}}}]}}},
        {"volume_mounts": {"/data": "a-volume"}},
        {"iam": {"tokens": {"a": e2b.Secret.iam_token(audience="b", token_type="JWT-SVID")}}},
    ],
    ids=lambda options: "-".join(f"{a}.{'.'.join(b)}" for a, b in options.items()),
)
async def test_options_of_create(sdk: Sdk, options: dict[str, Any]) -> None:
    with pytest.raises(SandboxException, match=REFUSED):
        await sdk.Sandbox.create(**options)


async def test_an_mcp_gateway(sdk: Sdk) -> None:
    with pytest.raises(SandboxException, match="404: template 'mcp-gateway' not found"):
        await sdk.Sandbox.create(mcp={})


OF_TEMPLATES: dict[str, Callable[[Any], Any]] = {
    "Template.exists": lambda template: template.exists("base"),
    "Template.alias_exists": lambda template: template.alias_exists("base"),
    "Template.assign_tags": lambda template: template.assign_tags("base:default", "stable"),
    "Template.remove_tags": lambda template: template.remove_tags("base", "stable"),
    "Template.get_tags": lambda template: template.get_tags("base"),
}


@each(OF_TEMPLATES)
async def test_names_of_templates(sdk: Sdk, call: Callable[..., Any]) -> None:
    with pytest.raises(TemplateException, match=REFUSED):
        await call(sdk.Template)


@covers_not_yet("Template.build", "Template.build_in_background", "Template.get_build_status")
async def test_builds(sdk: Sdk) -> None:
    recipe = e2b.Template().from_base_image()
    build = e2b.BuildInfo(template_id="t", build_id="b", name="n", alias="n", tags=[])
    for call in (
        sdk.Template.build(recipe, "one"),
        sdk.Template.build_in_background(recipe, "one"),
        sdk.Template.get_build_status(build),
    ):
        with pytest.raises(BuildException, match=REFUSED):
            await call


BEGINNINGS: dict[str, Callable[[Any], Any]] = {
    "from_debian_image": lambda new: new.from_debian_image(),
    "from_ubuntu_image": lambda new: new.from_ubuntu_image(),
    "from_fedora_image": lambda new: new.from_fedora_image(),
    "from_alpine_image": lambda new: new.from_alpine_image(),
    "from_arch_image": lambda new: new.from_arch_image(),
    "from_python_image": lambda new: new.from_python_image(),
    "from_node_image": lambda new: new.from_node_image(),
    "from_bun_image": lambda new: new.from_bun_image(),
    "from_base_image": lambda new: new.from_base_image(),
    "from_image": lambda new: new.from_image("one", username="u", password="p"),
    "from_template": lambda new: new.from_template("base"),
    "from_dockerfile": lambda new: new.from_dockerfile("FROM one\nRUN true"),
    "from_aws_registry": lambda new: new.from_aws_registry("one", "k", "s", "r"),
    "from_gcp_registry": lambda new: new.from_gcp_registry("one", {"type": "account"}),
    "skip_cache": lambda new: new.skip_cache().from_base_image(),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=covers_not_yet(f"Template.{n}")) for n in BEGINNINGS]
)
async def test_what_a_template_starts_from(sdk: Sdk, name: str) -> None:
    CALLED.add(f"Template.{name}")
    recipe = BEGINNINGS[name](CLASSES["Template"][sdk.flavour]())
    with pytest.raises(BuildException, match=REFUSED):
        await sdk.Template.build(recipe, "one")


STEPS: dict[str, Callable[[TemplateBuilder], Any]] = {
    "copy": lambda recipe: recipe.copy("a-file", "/there"),
    "copy_items": lambda recipe: recipe.copy_items([{"src": "a-file", "dest": "/there"}]),
    "remove": lambda recipe: recipe.remove("x"),
    "rename": lambda recipe: recipe.rename("x", "y"),
    "make_dir": lambda recipe: recipe.make_dir("x"),
    "make_symlink": lambda recipe: recipe.make_symlink("x", "y"),
    "run_cmd": lambda recipe: recipe.run_cmd("true"),
    "set_workdir": lambda recipe: recipe.set_workdir("/x"),
    "set_user": lambda recipe: recipe.set_user("root"),
    "pip_install": lambda recipe: recipe.pip_install("one"),
    "npm_install": lambda recipe: recipe.npm_install("one"),
    "bun_install": lambda recipe: recipe.bun_install("one"),
    "apt_install": lambda recipe: recipe.apt_install("one"),
    "add_mcp_server": lambda recipe: recipe.add_mcp_server("one"),
    "git_clone": lambda recipe: recipe.git_clone("https://git.example.com/one"),
    "beta_dev_container_prebuild": lambda recipe: recipe.beta_dev_container_prebuild("/x"),
    "beta_set_dev_container_start": lambda recipe: recipe.beta_set_dev_container_start("/x"),
    "set_envs": lambda recipe: recipe.set_envs({"A": "b"}),
    "skip_cache": lambda recipe: recipe.skip_cache(),
    "set_start_cmd": lambda recipe: recipe.set_start_cmd("true", e2b.wait_for_port(80)),
    "set_ready_cmd": lambda recipe: recipe.set_ready_cmd(e2b.wait_for_file("/x")),
}
MCP_STEPS = {"add_mcp_server"}
DEV_CONTAINER_STEPS = {"beta_dev_container_prebuild", "beta_set_dev_container_start"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=covers_not_yet(f"TemplateBuilder.{n}")) for n in STEPS]
)
def test_steps_of_a_build(e2b_environment: None, tmp_path: Path, name: str) -> None:
    (tmp_path / "a-file").write_text("content")
    CALLED.add(f"TemplateBuilder.{name}")
    start = e2b.Template(file_context_path=tmp_path)
    if name in MCP_STEPS:
        recipe = start.from_template("mcp-gateway")
    elif name in DEV_CONTAINER_STEPS:
        recipe = start.from_template("devcontainer")
    else:
        recipe = start.from_base_image()
    with pytest.raises(BuildException, match=REFUSED):
        e2b.Template.build(STEPS[name](recipe), "one")


@covers("Template.to_json", "Template.to_dockerfile")
async def test_a_recipe_as_text(sdk: Sdk) -> None:
    recipe = CLASSES["Template"][sdk.flavour]().from_image("one").run_cmd("true")
    assert '"fromImage": "one"' in await sdk.Template.to_json(recipe)
    assert (await sdk.Template.to_dockerfile(recipe)).startswith("FROM one\nRUN true")


VOLUMES: dict[str, Callable[[Any], Any]] = {
    "Volume.create": lambda volume: volume.create("one"),
    "Volume.connect": lambda volume: volume.connect("one"),
    "Volume.get_info": lambda volume: volume.get_info("one"),
    "Volume.list": lambda volume: volume.list(),
    "Volume.destroy": lambda volume: volume.destroy("one"),
}


@each(VOLUMES)
async def test_volumes(sdk: Sdk, call: Callable[..., Any]) -> None:
    with pytest.raises(VolumeException, match=REFUSED):
        await call(sdk.Volume)


IN_A_VOLUME: dict[str, Callable[[Any], Any]] = {
    "Volume.exists": lambda volume: volume.exists("x"),
    "Volume.make_dir": lambda volume: volume.make_dir("x"),
    "Volume.read_file": lambda volume: volume.read_file("x"),
    "Volume.write_file": lambda volume: volume.write_file("x", "x"),
    "Volume.remove": lambda volume: volume.remove("x"),
    "Volume.update_metadata": lambda volume: volume.update_metadata("x", mode=0o600),
}


@each(IN_A_VOLUME)
async def test_files_in_a_volume(sdk: Sdk, call: Callable[..., Any]) -> None:
    volume = CLASSES["Volume"][sdk.flavour]("an-id", "a-name", "a-token")
    with pytest.raises(VolumeException, match=REFUSED):
        await call(Awaited(volume, "Volume"))


SECRETS: dict[str, Callable[[Any], Any]] = {
    "Secret.create": lambda secret: secret.create("one", "value"),
    "Secret.update": lambda secret: secret.update("one", "value"),
    "Secret.get_info": lambda secret: secret.get_info("one"),
    "Secret.exists": lambda secret: secret.exists("one"),
    "Secret.destroy": lambda secret: secret.destroy("one"),
}


@each(SECRETS)
async def test_secrets(sdk: Sdk, call: Callable[..., Any]) -> None:
    with pytest.raises(SecretException, match=REFUSED):
        await call(sdk.Secret)


@covers_not_yet("Secret.list", "SecretPaginator.next_items")
async def test_list_of_secrets(sdk: Sdk) -> None:
    pages = await sdk.Secret.list()
    with pytest.raises(SecretException, match=REFUSED):
        await pages.next_items()


@covers_not_yet("Secret.fill", "Secret.iam_token")
async def test_secrets_for_a_sandbox(sdk: Sdk) -> None:
    placeholder = await sdk.Secret.fill("one")
    rules = {"example.com": [{"transform": {"headers": {"X": placeholder}}}]}
    with pytest.raises(SandboxException, match=REFUSED):
        await sdk.Sandbox.create(network={"rules": rules})
    token = await sdk.Secret.iam_token(audience="one", token_type="JWT-SVID")
    with pytest.raises(SandboxException, match=REFUSED):
        await sdk.Sandbox.create(iam={"tokens": {"one": token}})


NOT_YET_OF_A_CLIENT: dict[str, tuple[type[Exception], Callable[[Any], Any]]] = {
    "E2B.Template": (TemplateException, lambda client: client.Template.exists("one")),
    "E2B.Volume": (VolumeException, lambda client: client.Volume.list()),
    "E2B.Secret": (SecretException, lambda client: client.Secret.get_info("one")),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=covers_not_yet(n)) for n in NOT_YET_OF_A_CLIENT]
)
async def test_a_client_with_options_of_its_own(
    sdk: Sdk, stack: Stack, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("E2B_API_KEY")
    error, call = NOT_YET_OF_A_CLIENT[name]
    with pytest.raises(error, match=REFUSED):
        await call(sdk.client(**stack.sdk))
