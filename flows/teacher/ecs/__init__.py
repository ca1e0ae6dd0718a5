"""Transcoding on our own ffmpeg servers, when the cloud's transcoder cannot."""
