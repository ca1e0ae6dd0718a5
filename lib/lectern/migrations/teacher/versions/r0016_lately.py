"""An index of when bookings arrived: recent ones are counted often, and reading all would take longer each day."""

from alembic import op

revision = "teacher_0016"
down_revision = "teacher_0015"


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_order_list_received_at", "order_list", ["received_at"], if_not_exists=True)
