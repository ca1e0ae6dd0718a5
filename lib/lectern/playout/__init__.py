"""The playout: airs classes by RTMP by itself, whatever happens to the rest of the host; docs/playout.md says how.

It imports the standard library only, and is reached by its control socket alone.
"""
