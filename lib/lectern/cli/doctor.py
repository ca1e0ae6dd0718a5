"""``lectern doctor``: a line for each thing that a host needs, and what to type if it is not well."""

import asyncio
from collections.abc import Iterator
from typing import Annotated

import typer

from lectern import urls
from lectern.cli import findings, places
from lectern.cli.findings import Finding
from lectern.cli.terms import Json, Role, painted, say, settings_of
from lectern.effects.media import push_target
from lectern.errors import LecternError, Misuse
from lectern.places import Places
from lectern.settings import Settings, StreamerSettings, TeacherSettings

app = typer.Typer()
MOST_HOSTS = 20


@app.command()
def doctor(
    role: Annotated[Role | None, typer.Argument(help="What this host is, if its database does not say.")] = None,
    as_json: Json = False,
) -> None:
    """Look at all that this host needs; a line each, with what to type. Exit code 1 if something is not well."""
    found = [one for each in _roles(role) for one in _of(each)]
    fields = {"well": all(one.is_well for one in found), "findings": [vars(one) for one in found]}
    say(as_json, fields, [] if as_json else [line for one in found for line in _lines(one)])
    raise typer.Exit(0 if fields["well"] else 1)


def _roles(role: Role | None) -> list[Role]:
    if role is not None:
        return [role]
    try:
        return [Role(place.settings.role) for place in places.here()]
    except Misuse as error:
        raise Misuse(
            f"{error.message} Say what this host is: lectern doctor teacher, or lectern doctor streamer"
        ) from error


def _of(role: Role) -> Iterator[Finding]:
    try:
        settings = settings_of(role)
    except LecternError as error:
        how = "write them into settings.env or .env, see README.md"
        yield Finding("settings", is_well=False, said=error.message, to_type=how)
        return
    yield Finding(role.value, is_well=True, said=settings.name)
    yield from findings.of_settings(settings)
    yield findings.of_database(settings)
    yield from findings.of_redis(settings)
    yield findings.of_prefect(settings)
    yield findings.of_process(settings)
    yield from _own(settings)


def _own(settings: Settings) -> Iterator[Finding]:
    if isinstance(settings, TeacherSettings):
        yield from findings.of_oss(settings)
        yield from _ecs_hosts(settings)
        return
    yield from findings.of_programs(settings)
    yield findings.of_disk(settings)
    yield findings.of_playout(settings.playout_socket_path)
    yield from _push_hosts(settings)


def _ecs_hosts(settings: TeacherSettings) -> Iterator[Finding]:
    from lectern.effects.ecs import ssh  # noqa: PLC0415 (paramiko takes long to load)
    from lectern.effects.ecs.ssh_host import Host  # noqa: PLC0415

    named = [one.strip() for one in settings.ecs_hosts.split(",") if one.strip()]
    key, known = settings.ecs_ssh_key, settings.ecs_known_hosts
    if named and (key is None or known is None):
        yield Finding("ECS hosts", is_well=False, said="ECS_SSH_KEY or ECS_KNOWN_HOSTS is not set", to_type="set both")
        return

    async def look(host: Host) -> str | None:
        assert key is not None and known is not None  # noqa: PT018 (it was looked at above)
        async with ssh.connect(host, key, known, timeout_s=findings.LOOK_S) as connection:
            done = await connection.run([settings.ecs_ffmpeg, "-version"], timeout_s=findings.LOOK_S)
            return None if done.returncode == 0 else f"{settings.ecs_ffmpeg} cannot be run there"

    for one in named:
        to_type = "write it in ECS_HOSTS as ssh://user@host:port"
        try:
            host = Host.parse(one)
            to_type = (
                f"ssh -i {key} -o UserKnownHostsFile={known} -p {host.port} {host.user}@{host.name} ffmpeg -version"
            )
            why = asyncio.run(look(host))
        except LecternError as error:
            why = error.message
        yield Finding(
            "ECS host", is_well=why is None, said=f"{one}: {why or 'lets us in, and has ffmpeg'}", to_type=to_type
        )


def _push_hosts(settings: StreamerSettings) -> Iterator[Finding]:
    """Whether the servers answer that booked classes will be pushed to, up to MOST_HOSTS of them."""
    servers: dict[tuple[str, int], str] = {}
    for text in findings.push_urls(settings):
        try:
            url = urls.push(text)
        except ValueError:
            continue  # it was refused, or its streamer's check says so
        servers.setdefault((url.host, url.port), text)
    allowed = Places.listed(settings.allowed_push_hosts, "ALLOWED_PUSH_HOSTS").and_also(servers)
    for (host, port), text in list(servers.items())[:MOST_HOSTS]:
        why = asyncio.run(push_target.unreachable(text, timeout_s=findings.LOOK_S, allowed=allowed))
        said = f"{host}:{port} {'answers' if why is None else f'cannot be reached: {why}'}"
        yield Finding("push host", is_well=why is None, said=said, to_type=f"nc -vz {host} {port}")


def _lines(one: Finding) -> Iterator[str]:
    sign = painted("✓", "green") if one.is_well else painted("✗", "bold red")
    yield f"{sign} {one.what}: {one.said}"
    if not one.is_well and one.to_type:
        yield f"    --> {one.to_type}"
