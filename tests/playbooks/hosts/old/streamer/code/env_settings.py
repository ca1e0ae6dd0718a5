"""Settings of the client, from its .env, else from the environment."""

import os


def settings(path: str = ".env") -> dict[str, str]:
    """Every NAME=VALUE of the file, and what it lacks from the environment."""
    found = dict(os.environ)
    with open(path, encoding="utf-8") as file:
        for line in file.read().splitlines():
            name, equals, value = line.strip().partition("=")
            if equals and not name.startswith("#"):
                found[name.replace("export ", "").strip()] = value.strip().strip("'\"")
    return found
