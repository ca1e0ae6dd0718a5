"""Recordings and their receivers: ffmpeg, probes, push targets."""
