"""The resident process of a teacher or a streamer: messages, runs, alarms, health."""
