"""The table of the classes."""

BOOKED, OVER = 0, 2

TASK_LIST = (
    "CREATE TABLE IF NOT EXISTS task_list (class_id VARCHAR(250) NOT NULL, video_url VARCHAR(250),"
    " push_url VARCHAR(250), start_time INTEGER, end_time INTEGER, status INTEGER, teacher_name VARCHAR(50),"
    " PRIMARY KEY (class_id))"
)
