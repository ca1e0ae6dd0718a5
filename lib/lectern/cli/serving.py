"""``lectern serve``, ``reload``, ``init`` and ``deploy``: prepare a host, and run its resident process."""

import asyncio
import gc
import logging
from typing import Annotated

import typer

from lectern import health, logs
from lectern.cli import doctor
from lectern.cli.options import Json, Name, on_bus, say, set_prefect, settings_of
from lectern.db.engine import opened
from lectern.errors import LecternError, Misuse
from lectern.i18n import Text, labelled, translated
from lectern.redis import key_patterns
from lectern.settings import Settings
from lectern.states import Role

app = typer.Typer()
GARBAGE = 50_000, 5, 5
"""New objects after which garbage is collected. A batch of messages makes as many, and needs them to its end: with
Python's own 700, a storm spent a seventh of its time on collecting."""


@app.command()
def serve(role: Role, name: Name = None) -> None:
    """Run this host's resident process until SIGTERM."""
    settings = settings_of(role, name)
    logs.set_up(settings.log_format, settings.log_level)
    set_prefect(settings)
    for warning in doctor.renamed():
        logging.getLogger("lectern").warning("settings: %s", warning)
    from flows.resident import process  # noqa: PLC0415 (Prefect reads its settings when it is imported)

    gc.freeze()
    gc.set_threshold(*GARBAGE)
    gc.enable()
    raise typer.Exit(process.serve(settings))


@app.command()
def init(
    role: Role,
    name: Name = None,
    check: Annotated[bool, typer.Option("--check", help="Say what would be done to the database, do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Migrate this host's database, make its deployments, and look at its keys in Redis; safe to repeat."""
    from lectern.db import schema  # noqa: PLC0415 (only who migrates waits for Alembic)

    settings = settings_of(role, name)
    with opened(settings.database_url) as engine:
        done = (schema.plan if check else schema.upgrade)(engine, role)
    if check:
        say(as_json, {"changed": bool(done), "database": done}, done or ["The database is as it should be."])
        return
    made = _deploy(settings)
    faults = _redis_faults(settings)
    old = doctor.renamed()
    fields = {"changed": bool(done or made), "database": done, "prefect": made, "redis": faults, "settings": old}
    say(as_json, fields, [*done, *made, *faults, *old])


@app.command()
def deploy(
    role: Role,
    name: Name = None,
    check: Annotated[bool, typer.Option("--check", help="Say what would be made in Prefect, do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make this host's work queue, deployments and automation in Prefect, and nothing else; safe to repeat."""
    made = _deploy(settings_of(role, name), check=check)
    say(as_json, {"changed": bool(made), "prefect": made}, made or ["Prefect has all that this host needs."])


def _deploy(settings: Settings, *, check: bool = False) -> list[str]:
    set_prefect(settings)
    from flows.resident.prefect import deployments  # noqa: PLC0415 (Prefect reads its settings when it is imported)

    gc.freeze()  # what was imported is neither looked through now nor freed at the end
    gc.enable()
    return asyncio.run(deployments.make(settings, check=check))


def _redis_faults(settings: Settings) -> list[str]:
    try:
        return on_bus(settings, lambda bus: key_patterns.type_faults(bus, settings))
    except LecternError as error:
        return [error.message]  # the host starts without Redis, too, and waits for it


@app.command()
def reload(
    role: Annotated[Role | None, typer.Argument(help="The role, if this host has both.")] = None,
    as_json: Json = False,
) -> None:
    """Have this host's resident process read its settings anew; if one is wrong, nothing is changed.

    A line for each change says from when on it counts. SIGHUP does the same.
    """
    for each in doctor.roles(role, "reload"):
        settings = settings_of(each)
        bind = settings.bind
        if not bind or bind.endswith(":0"):
            raise Misuse(
                "The {role} answers nowhere, by its settings. Send its process SIGHUP instead, and read its log.",
                role=Text(each),
            )
        answer = health.reloaded(f"http://{bind}", f"lectern-{each}")
        lines = health.sentences(answer) or [Text("no setting has changed")]
        said = [translated(labelled(Text(each), line), settings.lectern_lang) for line in lines]
        say(as_json, {"role": each, **answer}, said)
