"""vc completion, and the names of pods and images that it completes."""

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
    """Print a script that makes SHELL complete commands, options and pod names.

    \b
    bash   eval "$(vc completion bash)"    in ~/.bashrc
    zsh    eval "$(vc completion zsh)"     in ~/.zshrc
    fish   vc completion fish | source     in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    completion_class = get_completion_class(shell)
    if completion_class is None:
        raise click.UsageError(f"no completion for {shell!r}; use bash, zsh or fish")
    click.echo(completion_class(ctx.find_root().command, {}, "vc", _VARIABLE).source())


def pod_id_argument(metavar: str = "POD", **options: Any) -> Callable[[F], F]:
    """The argument POD, with completion of pod names."""
    return click.argument("pod_id", metavar=metavar, shell_complete=_pods, **options)


def pod_ids_argument(required: bool = True) -> Callable[[F], F]:
    """The argument POD..., with completion of pod names."""
    metavar = "POD..." if required else "[POD]..."
    return click.argument(
        "pod_ids", metavar=metavar, nargs=-1, required=required, shell_complete=_pods
    )


def images(_ctx: click.Context, _param: click.Parameter, prefix: str) -> list[str]:
    """Complete names of images."""

    async def names(runtime: Runtime) -> list[str]:
        return [name for image in await runtime.images.list() for name in image.names]

    return _matching(names, prefix)


def _pods(_ctx: click.Context, _param: click.Parameter, prefix: str) -> list[str]:
    async def names(runtime: Runtime) -> tuple[str, ...]:
        return (await runtime.hooks.storage_list()).pods

    return _matching(names, prefix)


def _matching(list_names: Callable[[Runtime], Awaitable[Iterable[str]]], prefix: str) -> list[str]:
    """Names with this prefix; none on an error, which would disturb the command line."""
    import asyncio

    from vc_core.cli.global_options import Settings
    from vc_core.spec.errors import VcError

    async def fetch() -> Iterable[str]:
        async with Settings().runtime() as runtime:
            return await list_names(runtime)

    with contextlib.suppress(VcError, OSError):
        return sorted(name for name in asyncio.run(fetch()) if name.startswith(prefix))
    return []
