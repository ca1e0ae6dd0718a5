"""What an origin promises of a file; apart from what asks for it, so that who only reads rows loads no HTTP client."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RemoteFile:
    """A file on an origin as it promises it; None where it promises nothing. *url* is where redirects ended.

    *address* is the checked one that answered.
    """

    url: str
    size_bytes: int | None
    etag: str | None
    crc64: int | None
    address: str | None = field(default=None, compare=False)

    @property
    def promise(self) -> tuple[int | None, str | None, int | None]:
        """What differs where another file is in its place."""
        return self.size_bytes, self.etag, self.crc64
