"""`ipytune chat` and `ipytune endpoints`. cli.py mounts `app`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ipytune.endpoints.catalogue_commands import app as catalogue_app

if TYPE_CHECKING:
    from ipytune.endpoints.answer import Answer

app = typer.Typer()
app.add_typer(catalogue_app, name="endpoints")

_ALTERNATIVES = 3  # likeliest tokens that --logprobs shows


@app.command()
def chat(
    prompt: Annotated[
        str | None, typer.Argument(help="What to ask; - reads it from standard input. Without it: a conversation.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", "--url", help="A name of `ipytune endpoints`, or a URL.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="For a URL: the model, if the server lists several.")] = None,
    key_env: Annotated[
        str | None, typer.Option(help="For a URL: NAME of the environment variable that holds the key.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="For a URL: the file that holds the key.")] = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 512,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="0: always the likeliest token. The server's own when absent.")
    ] = None,
    logprobs: Annotated[
        bool, typer.Option("--logprobs", help="The log-probability of each token, where the server has them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Each answer as one line of JSON, when it is whole.")] = False,
) -> None:
    """Ask an endpoint, stream the answer, and say how quick it was (on standard error).

    Without a prompt it is a conversation, a line a turn. Ctrl-C cancels an answer; a second one, or Ctrl-D, ends.
    """
    from ipytune.endpoints.conversation import Conversation, converse
    from ipytune.endpoints.conversation import as_json as plain
    from ipytune.endpoints.errors import EndpointError
    from ipytune.endpoints.naming import several

    options: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature}
    if logprobs:
        options |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}

    def after(answer: Answer) -> None:
        if as_json:
            typer.echo(json.dumps(plain(answer), ensure_ascii=False))
        else:
            conversation.tell(answer, logprobs=logprobs)

    try:
        [one] = several([endpoint] if endpoint else [], model=model, key_env=key_env, key_file=key_file)
        conversation = Conversation(one, options, sys.stdout, sys.stderr, system)
        if prompt is not None:
            words = sys.stdin.read() if prompt == "-" else prompt
            after(conversation.say(words, shown=not as_json))
            return
        converse(conversation, _turns(f"{one.name} ({one.model})"), after, shown=not as_json)
    except EndpointError as error:
        _fail(str(error))
    except UnicodeDecodeError:
        _fail("Standard input is no text: it is not UTF-8.")
    except KeyboardInterrupt:
        typer.echo("\nCancelled." if prompt is not None else "", err=True)
        raise typer.Exit(130) from None


def _turns(partner: str) -> Iterator[str]:
    """What is typed, a line a turn, until the end of the input. From a pipe as from a keyboard."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield line.rstrip("\n")
        return
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives input() its editing and history)
    typer.echo(f"Chat with {partner}. Ctrl-C cancels an answer, Ctrl-D ends.", err=True)
    while True:
        try:
            yield input("› ")
        except EOFError:
            typer.echo("", err=True)
            return


def _fail(message: str) -> NoReturn:
    from ipytune.endpoints.untrusted import visible

    typer.echo(f"\nipytune: {visible(message)}", err=True)
    raise typer.Exit(1)
