"""`sitrep dead-letters`: look at events that could not be processed, and put them back, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from deploy import options

if TYPE_CHECKING:
    from stream.letter_survey import Stored, Wanted
    from stream.records import DeadLetter
    from workers.settings import Settings

Id = Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="Only this dead letter; may be repeated.")]
Reason = Annotated[
    list[str] | None, typer.Option("--reason", metavar="WORD", help="Only with this reason; may be repeated.")
]


def register(app: typer.Typer) -> None:
    """Add the command group."""
    letters = typer.Typer(no_args_is_help=True, help="Look at events that could not be processed, put them back.")
    letters.command("list")(list_letters)
    letters.command("show")(show_letter)
    letters.command("replay")(replay_letters)
    app.add_typer(letters, name="dead-letters", rich_help_panel="Operate")


def list_letters(
    reason: Reason = None,
    as_json: options.AsJson = False,
    kafka: options.Kafka = None,
    prefix: options.Prefix = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """List the dead letters: id, reason, attempt, when, and whether they were put back."""
    from deploy.render import safe

    settings = options.read_settings(kafka=kafka, prefix=prefix, config=config_file, set_=set_)
    stored = _stored(settings, _wanted(None, reason))
    if as_json:
        _tell_each(settings, stored, _tell_json)
        return
    if not stored:
        typer.echo("no dead letters")
        return
    id_width = max(len(one.id) for one in stored)
    reason_width = max(len(one.reason) for one in stored)
    typer.echo(f"{'id':<{id_width}}  {'reason':<{reason_width}}  attempt  failed at (UTC)      put back  message")
    for one in stored:
        when = f"{one.failed_at:%Y-%m-%d %H:%M:%S}" if one.failed_at else "unknown"
        typer.echo(
            f"{safe(one.id):<{id_width}}  {safe(one.reason):<{reason_width}}  {one.attempt:>7}  {when:<19}  "
            f"{'yes' if one.replayed else 'no':<8}  {safe(one.message)}"
        )


def show_letter(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="The dead letter's id, from `list`.")],
    as_json: options.AsJson = False,
    kafka: options.Kafka = None,
    prefix: options.Prefix = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Show one dead letter in full: why it failed, its headers and its original bytes."""
    from deploy.failure import CommandFailed

    settings = options.read_settings(kafka=kafka, prefix=prefix, config=config_file, set_=set_)
    stored = _stored(settings, _wanted([letter_id], None))
    if not _tell_each(settings, stored, _tell_pretty_json if as_json else _tell_in_full):
        name = options.topics_of(settings).dead_letters.name
        raise CommandFailed(f"there is no dead letter {letter_id} on {name}: `list` names them")


def replay_letters(
    ids: Id = None,
    reason: Reason = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    max_attempts: Annotated[
        int,
        typer.Option(
            "--max-attempts",
            metavar="N",
            min=1,
            help="With --all or --reason, leave what failed more than N times; 1: what was put back and failed again.",
        ),
    ] = 1,
    kafka: options.Kafka = None,
    prefix: options.Prefix = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Put dead letters back where they came from, each once, however often this is called.

    A post that fails again is a new dead letter, of the next attempt: it is put back by its id, or with a higher
    `--max-attempts`.
    """
    from deploy.failure import CommandFailed
    from stream.dead_letters import replay_dead_letters

    if not (ids or reason or everything):
        raise typer.BadParameter("say which: --id ID, --reason WORD or --all")
    settings = options.read_settings(kafka=kafka, prefix=prefix, config=config_file, set_=set_)
    topics = options.topics_of(settings)
    done = asyncio.run(
        replay_dead_letters(
            settings.broker,
            topics.dead_letters.name,
            _wanted(ids, reason),
            targets=frozenset({topics.posts.name, topics.prepared.name}),
            max_record_bytes=settings.max_record_bytes,
            max_attempts=max_attempts,
        )
    )
    for letter_id in done.sent:
        typer.echo(f"put back  {letter_id}")
    for letter_id in done.left:
        typer.echo(f"left      {letter_id}  (of another topic, or its bytes were too large to keep)")
    for letter_id in done.failed_again:
        typer.echo(f"left      {letter_id}  (failed more than {max_attempts}x: give its --id, or --max-attempts)")
    n_left = len(done.left) + len(done.failed_again)
    typer.echo(f"{len(done.sent)} put back, {len(done.before)} had been before, {n_left} left")
    found = {*done.sent, *done.before, *done.left, *done.failed_again}
    if unknown := sorted({*(ids or ())} - found):
        raise CommandFailed(f"no such dead letter: {', '.join(unknown)}: `sitrep dead-letters list` names them")
    if reason and not found:
        raise CommandFailed(f"no dead letter has the reason {', '.join(reason)}: `sitrep dead-letters list` shows them")


def _stored(settings: Settings, wanted: Wanted) -> list[Stored]:
    from stream.letter_survey import list_dead_letters

    return asyncio.run(list_dead_letters(settings.broker, options.topics_of(settings).dead_letters.name, wanted))


def _tell_each(settings: Settings, stored: Sequence[Stored], tell: Callable[[Stored, DeadLetter], None]) -> int:
    """Tell of the letters, one at a time, since all of them may not fit in memory; return how many there were."""
    from stream.letter_survey import read_dead_letters

    async def tell_all() -> int:
        n_told = 0
        async for some in read_dead_letters(settings.broker, options.topics_of(settings).dead_letters.name, stored):
            for one, letter in some:
                tell(one, letter)
            n_told += len(some)
        return n_told

    return asyncio.run(tell_all())


def _tell_json(one: Stored, letter: DeadLetter) -> None:
    typer.echo(_json(one, letter))


def _tell_pretty_json(one: Stored, letter: DeadLetter) -> None:
    import msgspec

    typer.echo(msgspec.json.format(_json(one, letter)).decode())


def _tell_in_full(one: Stored, letter: DeadLetter) -> None:
    from deploy.render import safe

    typer.echo(f"id        {letter.id}{' (put back already)' if one.replayed else ''}")
    typer.echo(f"reason    {letter.reason}, in stage {letter.stage}, attempt {letter.attempt}, {letter.failed_at}")
    typer.echo(f"error     {letter.exception}: {safe(letter.message)}")
    typer.echo(f"key       {letter.key!r}")
    for name, value in letter.headers:
        typer.echo(f"header    {safe(name)}: {value!r}")
    value = letter.value or b""
    typer.echo(f"value     {len(value)} bytes: {value[:2000]!r}{' ...' if len(value) > 2000 else ''}")


def _json(one: Stored, letter: DeadLetter) -> bytes:
    import msgspec

    return msgspec.json.encode(msgspec.to_builtins(letter) | {"replayed": one.replayed})


def _wanted(ids: list[str] | None, reasons: list[str] | None) -> Wanted:
    from stream.letter_survey import Wanted

    return Wanted(ids=frozenset(ids or ()), reasons=frozenset(reasons or ()))
