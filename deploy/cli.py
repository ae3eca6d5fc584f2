"""The `sitrep` command: help, errors as one line, exit codes; imports nothing heavy before a command needs it."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from deploy import (
    commands_cache,
    commands_dead_letters,
    commands_evaluate,
    commands_findings,
    commands_settings,
    commands_topics,
    commands_train,
    commands_try,
    commands_work,
)

app = typer.Typer(
    name="sitrep",
    help=(
        "Crisis monitoring with evidence: reads posts from Kafka, classifies them, shows the words and picture"
        " patches behind each label, and raises alerts.\n\nNew here? Run `sitrep demo`."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
commands_try.register(app)
commands_work.register(app)
commands_findings.register(app)
commands_topics.register(app)
commands_cache.register(app)
commands_dead_letters.register(app)
commands_evaluate.register(app)
commands_train.register(app)
commands_settings.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from workers.version import version

        typer.echo(f"sitrep {version()}")
        raise typer.Exit


@app.callback()
def _sitrep(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show library logs, and tracebacks of errors.")] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 it failed, 2 it was used wrongly, 130 it was interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given  # may stand anywhere
    given = [argument for argument in given if argument != "--debug"]
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    else:  # keeps warnings of libraries off the terminal; a worker sets up its own logs
        logging.getLogger().addHandler(logging.NullHandler())
    sys.exit(_run(given, debug=debug))


def _run(arguments: list[str], *, debug: bool) -> int:
    try:
        code = app(args=arguments, prog_name="sitrep", standalone_mode=False)
        sys.stdout.flush()
    except typer.Abort:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        return 1
    except Exception as error:  # the edge: whatever went wrong becomes one line
        from workers.setting_sources import without_password

        if debug:
            print(without_password("".join(traceback.format_exception(error))), file=sys.stderr, end="")
        line, code = _explain(error)
        if line:
            print(f"sitrep: {without_password(line)}", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> tuple[str, int]:
    """Return what to tell the user about an error, and the exit code."""
    usage = getattr(error, "format_message", None)
    if usage is not None:
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            print(usage())
            return "", 2
        command = context.command_path if context is not None else "sitrep"
        return f"{_one_line(_with_value(usage(), error))} (help: {command} --help)", 2

    from redis.exceptions import RedisError

    from deploy.embedded import EmbeddedError
    from deploy.failure import CommandFailed
    from deploy.options import redis_failure
    from model import ModelError
    from stream.errors import StreamError
    from workers.errors import WorkerError
    from workers.settings import SettingsError

    if isinstance(error, SettingsError):
        return _one_line(str(error)), 2
    if isinstance(error, EmbeddedError):
        return str(error), 1  # ends with the service's log
    if isinstance(error, StreamError | WorkerError | ModelError | CommandFailed):
        return _one_line(str(error)), 1
    if isinstance(error, RedisError):
        return _one_line(redis_failure(error)), 1
    if isinstance(error, FileExistsError | NotADirectoryError) and error.filename is not None:
        where = "is" if isinstance(error, FileExistsError) else "lies below"
        return f"{error.filename} {where} a file: give a folder", 1
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", 1
    return f"unexpected {type(error).__name__}: {_one_line(str(error))} (add --debug for the traceback)", 1


def _with_value(message: str, error: Exception) -> str:
    """Return the parser's message with the value that it leaves out where it is out of range."""
    errors = getattr(error.__cause__, "errors", None)
    value = "" if errors is None else str(errors()[0]["input"])
    return f"{message} (given: {value})" if value and repr(value) not in message else message


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()
