"""The host under a rollout: its supervisor, health, links and durable files."""
