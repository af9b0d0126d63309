"""Credentials in URLs: needed on the wire, and by nobody who reads a log, an error or a recording."""

from __future__ import annotations

import re

MASK = "***@"
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")


def masked(text: str) -> str:
    """`text` with the user name and password of every URL in it left out."""
    return _USERINFO.sub(MASK, text)
