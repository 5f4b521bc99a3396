"""URLs whose query holds a secret: which file such a URL names, what of it may be shown, and what tells it from others.

It is about the web alone: in a bucket or on a disk, what stands behind a question mark is a part of the name.
"""

from __future__ import annotations

import hashlib
import posixpath
import re

_WEB = re.compile(r"https?://", re.IGNORECASE)
# What signs a request, by the names that clouds and content networks give it: whoever renews it means the same file.
_SIGNS = re.compile(
    r"x-(?:amz|goog|oss|obs|cos|ms)-[\w-]+|awsaccesskeyid|googleaccessid|ossaccesskeyid|accesskeyid|key-pair-id|policy"
    r"|expires?|signature|sig|se|sp|st|sv|sr|srt|ss|sip|spr|ske|skoid|sks|skt|sktid|skv"
    r"|q-(?:ak|sign[\w-]*|key-time|header-list|url-param-list)|hdnts|hdnea|hmac|token|access_token|id_token|jwt|auth",
    re.IGNORECASE,
)
# What may be a secret by its name, or looks like one: digits and letters of both cases without a pause, or hex digits.
_SECRET = re.compile(r"key|secret|token|passw|passphrase|pwd|auth|sign|cred|session|hash", re.IGNORECASE)
_RANDOM = re.compile(r"(?=[^/]*\d)(?=[^/]*[a-z])(?=[^/]*[A-Z])[\w+=.%~-]{20,}|[0-9a-fA-F]{32,}")
_QUERY = re.compile(r"([?&])([^\s'\"<>]*=[^\s'\"<>]*)")


def is_web(url: str) -> bool:
    """Say whether a URL is one of a web server."""
    return bool(_WEB.match(url))


def file_of(url: str) -> str:
    """Return a URL without its query, which says nothing of what the file is.

    Examples
    --------
    >>> file_of("https://host/a.csv?X-Amz-Signature=5"), file_of("s3://bucket/a?b.csv")
    ('https://host/a.csv', 's3://bucket/a?b.csv')
    """
    return re.split(r"[?#]", url, maxsplit=1)[0] if is_web(url) else url


def unsigned(url: str) -> str:
    """Return a URL of the web without what is, or may be, secret in its query.

    Examples
    --------
    >>> unsigned("https://host/a%20b.jpg?size=2&X-Amz-Signature=abc&key=5"), unsigned("https://host/a.jpg?sig=5")
    ('https://host/a%20b.jpg?size=2', 'https://host/a.jpg')
    """
    if not is_web(url):
        return url
    rest, *behind = url.split("#", 1)
    place, mark, query = rest.partition("?")
    shown = _shown(query)
    # What stands behind a hash has a name where it is a secret; a member of a file has none.
    told = [part for part in behind if "=" not in part] or [part for part in map(_shown, behind) if part]
    return place + (mark if shown else "") + shown + "".join(f"#{part}" for part in told)


def _shown(query: str) -> str:
    return "&".join(part for part in query.split("&") if not (_is_signature(part) or _is_secret(part)))


def named_apart(url: str) -> str:
    """Return what a file of the web may be called: `unsigned`, with a mark for what else tells it from others.

    Examples
    --------
    >>> named_apart("https://host/a.jpg?key=1"), named_apart("https://host/a.jpg?key=2")
    ('https://host/a~5d5a2f99.jpg', 'https://host/a~47564524.jpg')
    >>> named_apart("https://host/a.jpg?sig=5&size=2"), named_apart("a.jpg?key=1")
    ('https://host/a.jpg?size=2', 'a.jpg?key=1')
    """
    query = url.partition("?")[2].partition("#")[0] if is_web(url) else ""
    hidden = [part for part in query.split("&") if _is_secret(part) and not _is_signature(part)]
    return marked(unsigned(url), "&".join(sorted(hidden))) if hidden else unsigned(url)


def base_name(path: str) -> str:
    """Return what a file is called without the folders it lies in; one of the web as `named_apart` says.

    >>> base_name("https://host/photos/cat.jpg?v=a/b&sig=5"), base_name("/photos/cat?v=a/b.jpg")
    ('cat.jpg?v=a/b', 'b.jpg')
    """
    if not is_web(path):
        return posixpath.basename(path)
    place, mark, query = named_apart(path).partition("?")
    return posixpath.basename(place) + mark + query


def marked(name: str, text: str) -> str:
    """Return a name with a mark of a text, from which nobody can tell the text, before its extension.

    >>> marked("photos/cat.jpg?size=2", "5"), marked("photos.d/cat", "5")
    ('photos/cat~ef2d127d.jpg?size=2', 'photos.d/cat~ef2d127d')
    """
    place, mark, query = name.partition("?")
    stem, extension = posixpath.splitext(place)
    return f"{stem}~{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}{extension}{mark}{query}"


def without_signatures(text: str) -> str:
    """Return a text without the secret parameters of URLs, whatever stands before them.

    Examples
    --------
    >>> without_signatures("no file /a b.jpg?X-Amz-Date=1&v=2&X-Amz-Signature=3 says the server")
    'no file /a b.jpg?v=2 says the server'
    >>> without_signatures("what? /a.jpg?sig=1&se=2"), without_signatures("all well?")
    ('what? /a.jpg', 'all well?')
    """

    def kept(found: re.Match[str]) -> str:
        parts = found[2].split("&")
        shown = [part for part in parts if not ("=" in part and (_is_signature(part) or _is_secret(part)))]
        return found[1] + "&".join(shown) if shown else ""

    return _QUERY.sub(kept, text)


def _is_signature(part: str) -> bool:
    return bool(_SIGNS.fullmatch(part.partition("=")[0]))


def _is_secret(part: str) -> bool:
    name, _, value = part.partition("=")
    return bool(_SECRET.search(name) or _RANDOM.search(value))
