"""What an origin promises of a file; in a module of its own, so that reading rows loads no HTTP client."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RemoteFile:
    """A file as its origin promises it; a field is None if the origin does not say it. *url* is where redirects ended.

    *address* is the checked address that answered.
    """

    url: str
    size_bytes: int | None
    etag: str | None
    crc64: int | None
    address: str | None = field(default=None, compare=False)

    @property
    def promise(self) -> tuple[int | None, str | None, int | None]:
        """Size, ETag and CRC-64, which differ if another file has taken this one's place."""
        return self.size_bytes, self.etag, self.crc64
