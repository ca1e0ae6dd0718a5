"""The units for hosts that are set up by hand say what provision.yml writes on the others."""

import re
from configparser import RawConfigParser
from pathlib import Path

import jinja2

ROOT = Path(__file__).parents[2]
UNITS, TEMPLATES = ROOT / "examples/units", ROOT / "playbooks/roles/provision/templates"


def parsed(text: str) -> dict[str, str]:
    """The service's lines but for those that name places and users."""
    found = RawConfigParser(strict=False)
    found.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    found.read_string(text)
    return {
        name: value
        for name, value in found["Service"].items()
        if name not in {"User", "WorkingDirectory", "ExecStart", "StateDirectory", "EnvironmentFile"}
    }


def test_the_playout_s_unit_is_as_well_guarded_as_the_provisioned_one() -> None:
    template = jinja2.Template((TEMPLATES / "lectern-playout.service.j2").read_text())
    assert parsed((UNITS / "lectern-playout.service").read_text()) == parsed(template.render())


def test_the_prefect_server_has_the_settings_of_a_busy_day() -> None:
    line = re.compile(r"^PREFECT_SERVER_SERVICES_\w+='.*'$", re.MULTILINE)
    example, template = (UNITS / "prefect.env").read_text(), (TEMPLATES / "prefect.env.j2").read_text()
    assert set(line.findall(example)) == set(line.findall(template)) != set()


def test_each_program_that_a_unit_starts_is_there() -> None:
    """In the project's folder, whose place is /opt/lectern."""
    texts = [one.read_text() for one in UNITS.iterdir()]
    paths = {one for text in texts for one in re.findall(r"/opt/lectern/((?:lib|examples)/\S+)", text)}
    assert paths
    assert all((ROOT / one).exists() for one in paths)
