"""The Redis that is provided lets in who comes with its URL, whatever the password holds."""

import json
import os
import shutil
import subprocess
from itertools import product
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from tests.playbooks import here
from tests.stage import Child
from town import programs
from town.ports import free_port

pytestmark = pytest.mark.live
RENDER = f"""
- hosts: cases
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        {{name: provision, tasks_from: prefect_restart, public: true, apply: {{when: false}}}}
    - {here.told("conf", here.texts({"redis": "redis.conf.j2"}))}
    - {here.told("login", "provision_redis_login")}
"""
PASSWORDS = ("p@ss/w:rd#%41+", 'a "quoted" back\\slash', "密码 é")
CASES = {f"case{n}": case for n, case in enumerate(product(("lectern", "default", ""), PASSWORDS))}
URLS = {
    name: f"redis://{user}:{quote(password, safe='')}@192.0.2.10:6379/0" for name, (user, password) in CASES.items()
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of all cases, each that of a host."""
    hosts = {name: {"lectern_redis_url": url} for name, url in URLS.items()}
    return here.written(tmp_path_factory.mktemp("redis"), RENDER, json.dumps({"cases": {"hosts": hosts}}))


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="no redis-cli here")
@pytest.mark.parametrize("case", CASES)
def test_a_password_that_a_url_must_encode_lets_in(tmp_path: Path, rendered: Path, case: str) -> None:
    """Every client decodes what the URL says: the server is given the same, and so is the playbook's own question.

    A URL may name the user whom Redis has from the start.
    """
    port = free_port()
    conf = json.loads((rendered / f"{case}.conf").read_text())["redis"]
    conf = conf.replace("port 6379", f"port {port}").replace(" 192.0.2.10", "")
    (tmp_path / "redis.conf").write_text(f"{conf}\ndir {tmp_path}\n")
    server = Child([programs.redis_server(), str(tmp_path / "redis.conf")], dict(os.environ), tmp_path / "redis.log")
    try:
        with redis.Redis.from_url(URLS[case].replace("192.0.2.10:6379", f"127.0.0.1:{port}")) as client:
            server.wait_for("Ready to accept connections")
            assert client.ping()
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        login = json.loads((rendered / f"{case}.login").read_text()).encode()
        argv = ["redis-cli", "-p", str(port)]
        asked = subprocess.run(argv, input=login + b"PING", capture_output=True, check=True, timeout=20)
        assert asked.stdout.split() == [b"OK", b"PONG"]
    finally:
        server.end()
