"""The playout's sentences for people: it sends them in English, and catalogues know them by their named gaps."""


def sentence(english: str, /, **values: object) -> str:
    """*english* with *values* in its gaps; `make catalogues` finds it by the name of this function."""
    return english.format(**values) if values else english
