"""The playout: airs classes by RTMP even if the rest of the host's programs are down; see docs/playout.md.

It imports the standard library only; other programs reach it only by its control socket.
"""
