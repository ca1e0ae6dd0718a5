"""Settings of the client, from its .env."""


def settings(path: str = ".env") -> dict[str, str]:
    """Every NAME=VALUE of the file."""
    found: dict[str, str] = {}
    with open(path, encoding="utf-8") as file:
        for line in file.read().splitlines():
            name, equals, value = line.strip().partition("=")
            if equals and not name.startswith("#"):
                found[name.replace("export ", "").strip()] = value.strip().strip("'\"")
    return found
