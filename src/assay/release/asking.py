"""What a version says of itself, asked directly: not through the proxy that a site may have set."""

import urllib.request
from contextlib import closing

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def asked(url: str, seconds: float) -> bytes:
    """The answer's body. Raises: OSError (HTTPError is one), ValueError, HTTPException."""
    with closing(_DIRECT.open(url, timeout=seconds)) as answer:
        content: bytes = answer.read()
    return content
