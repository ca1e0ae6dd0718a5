"""Which handled messages of the inbox Prefect's UI has shown."""

from lectern.migrations.recorded import add_recorded

revision = "teacher_0011"
down_revision = "teacher_0010"


def upgrade() -> None:
    """Add the column, and mark what an older release has handled."""
    add_recorded()
