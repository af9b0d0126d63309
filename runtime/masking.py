"""Secrets: needed on the wire, and by nobody who reads a log, an error or a recording.

A key may come back: in a server's refusal, in a model's reply, in an address that a library prints. So
whoever takes a secret into use makes it known here, and whatever writes text that others have a part in takes
them out.
"""

from __future__ import annotations

import base64
import json
import os
import re
from urllib.parse import quote, unquote

MASK = "***@"
HIDDEN = "***"
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_SHORTEST = 6
"""Characters. What is shorter stands in texts by chance."""
_known: dict[str, None] = {}
"""Every form of every secret that this process uses."""


def know_secret(secret: str) -> str:
    """Have `secret` taken out of whatever is written from now on; returns it without blanks around it."""
    secret = secret.strip()
    if len(secret) >= _SHORTEST:
        packed = base64.b64encode(secret.encode(errors="surrogateescape")).decode().rstrip("=")
        quoted = quote(secret, safe="", errors="replace")
        in_json = (json.dumps(secret, ensure_ascii=pure)[1:-1] for pure in (True, False))
        forms = (secret, *in_json, ascii(secret)[1:-1], quoted, packed)
        _known.update(dict.fromkeys(forms))
    return secret


def secret_of(variable: str) -> str:
    """The secret in the environment variable `variable`, made known; empty if it is not set."""
    return know_secret(os.environ.get(variable, ""))


def know_secrets_of(text: str) -> None:
    """Make known the passwords (or tokens, where there is no password) of the URLs in `text`.

    Of those, a plain word is taken out of URLs only: it stands in other texts, too ("camera").
    """
    for found in _USERINFO.findall(text):
        userinfo = unquote(found[:-1])
        for secret in (userinfo, userinfo.partition(":")[2]):
            if not secret.isalpha():
                know_secret(secret)


def without_secrets(text: str) -> str:
    """`text` without any secret that this process knows, also where it is written in URLs, JSON or base64."""
    for form in sorted(_known, key=len, reverse=True):  # one may be a part of another
        if form in text:
            text = text.replace(form, HIDDEN)
    return text


def masked(text: str) -> str:
    """`text` without known secrets, and with the user name and password of every URL in it left out."""
    return without_secrets(_USERINFO.sub(MASK, text))
