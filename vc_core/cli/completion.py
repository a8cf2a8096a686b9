"""vc completion, and the live names that it offers."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from vc_core.engine.api.runtime import Runtime

F = TypeVar("F", bound=Callable[..., Any])

_VARIABLE = "_VC_COMPLETE"
_PLACES = {
    "bash": '~/.bashrc: eval "$(vc completion bash)"',
    "zsh": '~/.zshrc: eval "$(vc completion zsh)"',
    "fish": "~/.config/fish/completions/vc.fish: vc completion fish | source",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(sorted(_PLACES)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a SHELL complete our commands, options and pods.

    \b
    bash   eval "$(vc completion bash)"    in ~/.bashrc
    zsh    eval "$(vc completion zsh)"     in ~/.zshrc
    fish   vc completion fish | source     in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(ctx.find_root().command, {}, "vc", _VARIABLE).source())


def pod_id_argument(metavar: str = "POD", **options: Any) -> Callable[[F], F]:
    """An argument that names a pod."""
    return click.argument("pod_id", metavar=metavar, shell_complete=_pods, **options)


def pod_ids_argument(required: bool = True) -> Callable[[F], F]:
    """An argument that names pods."""
    metavar = "POD..." if required else "[POD]..."
    return click.argument(
        "pod_ids", metavar=metavar, nargs=-1, required=required, shell_complete=_pods
    )


def images(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    """Names of images."""

    async def names(runtime: Runtime) -> list[str]:
        return [name for image in await runtime.images.list() for name in image.names]

    return _live(names, begun)


def _pods(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    async def names(runtime: Runtime) -> tuple[str, ...]:
        return (await runtime.hooks.storage_list()).pods

    return _live(names, begun)


def _live(ask: Callable[[Runtime], Awaitable[Iterable[str]]], begun: str) -> list[str]:
    """Names that begin so. Whoever only presses a key is not bothered with what is wrong."""
    import asyncio

    from vc_core.cli.global_options import Settings
    from vc_core.spec.errors import VcError

    async def asked() -> Iterable[str]:
        async with Settings().runtime() as runtime:
            return await ask(runtime)

    with contextlib.suppress(VcError, OSError):
        return sorted(name for name in asyncio.run(asked()) if name.startswith(begun))
    return []
