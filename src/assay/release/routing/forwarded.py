"""Whose a request is behind trusted proxies, by nginx's rule (`real_ip_recursive on`), whatever stands in the header.

From the right, each address of `X-Forwarded-For` was written by the one after it, so it counts only where that one is
trusted: the first that is not is the client, and what stands left of it is only what the client says.
"""

import ipaddress
import re
import socket
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PORT = re.compile(r"0*[1-9][0-9]{0,4}")
_FOUR = re.compile(r"[0-9]*(?:\.[0-9]*){3}")
_GROUP = re.compile(r"[0-9A-Fa-f]{1,4}")
_TAIL = re.compile(r"[0-9A-Fa-f]{1,4}\.")


def client(peer: str, said: Sequence[bytes], trusted: Sequence[Network]) -> str:
    """The address that counts; peer: that of the connection; said: every `X-Forwarded-For`, as they came."""
    address = peer
    for value in reversed(said):
        rest = value
        while rest:
            if not _is_within(address, trusted):
                return address
            rest = rest[:1] + rest[1:].rstrip(b" ,")
            # What begins with a separator has none there for nginx.
            before = max(rest.rfind(b" ", 1), rest.rfind(b",", 1), 0)
            found = _parsed(rest[before + 1 if before else 0 :].decode("latin-1"))
            if found is None:
                return address
            address, rest = found, rest[:before]
        if not value:
            return address
    return address


def _is_within(address: str, trusted: Sequence[Network]) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    # An IPv4 address that came by a socket for both.
    plain = getattr(ip, "ipv4_mapped", None) or ip
    return any(plain.version == network.version and plain in network for network in trusted)


def _parsed(text: str) -> str | None:
    """An address as it is usually written, of what may have a port; None: it is none, as nginx reads it."""
    if (bare := _four(text) or _six(text)) is not None:
        return bare
    host, colon, port = text.partition(":")
    if text.startswith("["):
        host, _, after = text[1:].partition("]")
        colon, port = after[:1], after[1:]
        if text.endswith("]") and not after:
            return _four(host) or _six(host)
    if colon != ":" or not _PORT.fullmatch(port) or int(port.lstrip("0")) > 65535:
        return None
    return _four(host) or _six(host)


def _four(text: str) -> str | None:
    """Leading zeros mean nothing, and no digits are 0."""
    if not _FOUR.fullmatch(text):
        return None
    parts = [part.lstrip("0") or "0" for part in text.split(".")]
    if any(len(part) > 3 or int(part) > 255 for part in parts) or parts == ["255"] * 4:
        return None
    return ".".join(parts)


def _six(text: str) -> str | None:
    """A colon before the first group, or after the last where zeros were left out, is no matter."""
    *groups, last = text.removeprefix(":").split(":")
    left_out = groups.count("")
    at = groups.index("") if left_out else 0
    ends = [last] if last or not left_out else ["0"]
    if "." in last:
        four = _four(last) if groups and _TAIL.match(last) else None
        if four is None:
            return None
        ends = [part.hex() for part in (socket.inet_aton(four)[:2], socket.inet_aton(four)[2:])]
    groups = [group for group in groups if group] + ends
    missing = 8 - len(groups)
    if left_out > 1 or missing < 0 or (missing > 0) != (left_out == 1):
        return None
    if not all(_GROUP.fullmatch(group) for group in groups):
        return None
    whole = groups[:at] + ["0"] * missing + groups[at:]
    return socket.inet_ntop(socket.AF_INET6, b"".join(int(group, 16).to_bytes(2, "big") for group in whole))
