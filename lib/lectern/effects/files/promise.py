"""What an origin promises of a file; in a module of its own, so that reading rows loads no HTTP client."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RemoteFile:
    """A file on an origin as it promises it; None if it promises nothing. *url* is where redirects ended.

    *address* is the checked one that answered.
    """

    url: str
    size_bytes: int | None
    etag: str | None
    crc64: int | None
    address: str | None = field(default=None, compare=False)

    @property
    def promise(self) -> tuple[int | None, str | None, int | None]:
        """What is compared: it differs if another file has taken this one's place."""
        return self.size_bytes, self.etag, self.crc64
