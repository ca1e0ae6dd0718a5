"""A list of rows travels as one parameter, in the words of both databases."""

import pytest
from sqlalchemy import select
from sqlalchemy.engine.url import make_url

from lectern.effects.rows.many import among, these
from lectern.model.tables.teacher import journal

INBOX = journal.inbox


@pytest.mark.parametrize(
    ("url", "number", "text"),
    [
        ("postgresql+psycopg://", "CAST(value AS BIGINT) FROM json_array", "CAST(value AS TEXT) FROM json_array"),
        ("sqlite://", "value FROM json_each", "value FROM json_each"),
    ],
    ids=["postgresql", "sqlite"],
)
def test_numbers_are_compared_as_numbers_and_texts_as_texts(url: str, number: str, text: str) -> None:
    """PostgreSQL compares no number with a text; the ids of rows are numbers of a type of our own."""
    dialect = make_url(url).get_dialect()()
    wanted = select(INBOX.c.id).where
    assert number in str(wanted(among(INBOX.c.id)).compile(dialect=dialect))
    assert text in str(wanted(among(INBOX.c.command)).compile(dialect=dialect))


def test_a_list_of_any_length_is_one_parameter() -> None:
    assert these(range(3)) == {"among": "[0, 1, 2]"}
    assert these(['a"b'], "names") == {"names": '["a\\"b"]'}
