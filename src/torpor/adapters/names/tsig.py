"""A TSIG key (RFC 8945) from a file as BIND writes it (`tsig-keygen`) and as `nsupdate -k` reads it."""

import binascii
import re
from pathlib import Path

import dns.name
import dns.tsig

from torpor.domain.errors import MissingPart

_KEY = re.compile(r'^\s*key\s+"?([^"\s{]+)"?\s*\{([^{}]*)\}', re.MULTILINE)
_ALGORITHM = re.compile(r'\balgorithm\s+"?([A-Za-z0-9.-]+)"?\s*;')
_SECRET = re.compile(r'\bsecret\s+"?([A-Za-z0-9+/=]+)"?\s*;')
_ALGORITHMS = {
    name.to_text(omit_final_dot=True): name
    for name in (dns.tsig.HMAC_SHA224, dns.tsig.HMAC_SHA256, dns.tsig.HMAC_SHA384, dns.tsig.HMAC_SHA512)
}


def read_key(file: Path) -> dns.tsig.Key:
    """The one key in the file. Raises MissingPart; the secret is never in the message."""
    what = f"the key for name updates can't be read from {file}"
    try:
        text = file.read_text(errors="replace")
    except OSError as error:
        remedy = "make it with tsig-keygen on the name server, and set key_file in [names.rfc2136]"
        raise MissingPart(what, detail=error.strerror or str(error), remedy=remedy) from error
    found = _KEY.findall(text)
    if len(found) != 1:
        raise MissingPart(what, detail=f"it holds {len(found)} keys", remedy='let it hold one: key "NAME" { ... };')
    name, body = found[0]
    algorithm, secret = _ALGORITHM.search(body), _SECRET.search(body)
    if algorithm is None or algorithm[1].lower() not in _ALGORITHMS:
        known = ", ".join(_ALGORITHMS)
        raise MissingPart(what, detail="its algorithm is not one that is still safe", remedy=f"use one of {known}")
    if secret is None:
        raise MissingPart(what, detail="it has no secret", remedy="copy the whole file from the name server")
    try:
        return dns.tsig.Key(
            dns.name.from_text(name),
            binascii.a2b_base64(secret[1], strict_mode=True),
            _ALGORITHMS[algorithm[1].lower()],
        )
    except binascii.Error as error:
        raise MissingPart(what, detail="its secret is not base64", remedy="copy the whole file anew") from error
