"""The process that serves both rooms: what comes in, runs, alarms, health."""
