"""lectern: recorded lessons, aired as live classes."""

from importlib.metadata import version

__version__ = version("lectern")
