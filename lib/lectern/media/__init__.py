"""Audio and video, by ffmpeg."""
