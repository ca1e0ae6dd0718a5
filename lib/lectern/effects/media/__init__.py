"""Recordings and what takes them: ffmpeg, probes, push targets."""
