"""Annotations in XML, Pascal VOC's and ImageNet's: a file an image."""

from __future__ import annotations

import posixpath
import re
import xml.etree.ElementTree as ET

from sess_ray.io.annotation_values import add_object, image_of, is_marked, text_of
from sess_ray.io.annotations import Annotation, Annotations
from sess_ray.small import marked

CORNERS = ("xmin", "ymin", "xmax", "ymax")
Claims = dict[str, tuple[str, Annotation] | None]  # by the name that an XML gives: what it is itself, and the image
_DECLARED = re.compile(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)")
# What XML in UTF-16 without a mark begins with.
_UNMARKED = {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}


def is_xml(content: bytes) -> bool:
    """Say whether a file begins as XML does."""
    try:
        return _text(content[:4096])[:1] == "<"
    except (UnicodeDecodeError, LookupError):
        return content.lstrip()[:1] == b"<"


def read_xml(found: Annotations, content: bytes, name: str, claims: Claims) -> None:
    """Read one file.

    Parameters
    ----------
    found : Annotations
    content : bytes
    name : str
        Its path below the folder that is read.
    claims : dict
        The images of the files read so far. A file name that several give, as copies of one do, is no one's: there each
        has the name of its XML.
    """
    try:
        text = _text(content)
    except UnicodeDecodeError as error:
        what = f"byte {error.object[error.start : error.start + 1]!r} is no {error.encoding}, save it as UTF-8"
        found.problems.append((name, f"broken XML: {what}"))
        return
    except LookupError as error:
        found.problems.append((name, f"broken XML: {error}"))
        return
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities can grow without bounds; annotations have none
        found.problems.append((name, "has a DOCTYPE or ENTITY, which is refused: remove it"))
        return
    try:
        root = ET.fromstring(text)  # noqa: S314 what is dangerous in it was just refused
    except (ET.ParseError, ValueError, RecursionError) as error:
        found.problems.append((name, f"broken XML: {error}"))
        return
    if root.tag != "annotation":
        found.problems.append(
            (name, f"has another root than the <annotation> of Pascal VOC and ImageNet: <{root.tag}>")
        )
        return
    _read(found, root, name, claims)


def _text(content: bytes) -> str:
    """Return XML as its mark or its declaration says; one that can be read as ASCII is no UTF-16, whatever it says."""
    declared = _DECLARED.match(content)
    encoding = marked(content) or _UNMARKED.get(content[:2])
    if encoding is None and declared is not None:
        encoding = declared[1].decode()
        encoding = "utf-8" if encoding.lower().startswith(("utf-16", "utf16", "ucs", "utf-32", "unicode")) else encoding
    return content.decode(encoding or "utf-8").strip("\0 \t\r\n")


def _read(found: Annotations, root: ET.Element, name: str, claims: Claims) -> None:
    database = (root.findtext("source/database") or "").lower()
    convention = "imagenet" if "imagenet" in database or "ilsvrc" in database else "voc"
    image = _image(found, root, name, claims)
    for entry in root.findall("object"):
        box = entry.find("bndbox")
        corners = None if box is None else [box.findtext(corner) for corner in CORNERS]
        difficult = is_marked(entry.findtext("difficult"))
        add_object(found, image, entry.findtext("name"), corners, convention, difficult=difficult)


def _image(found: Annotations, root: ET.Element, name: str, claims: Claims) -> Annotation:
    """Return the image of an XML: in its folder, by the name it gives, or its own: some of ImageNet's say "%s"."""
    sides = {side: root.findtext(f"size/{side}") for side in ("width", "height")}
    folders = [part for part in posixpath.dirname(name).split("/") if part not in ("", "Annotations")]
    own, given = (
        "/".join((*folders, file))
        for file in (
            posixpath.splitext(posixpath.basename(name))[0],
            posixpath.basename((text_of(root.findtext("filename")) or "").replace("\\", "/")),
        )
    )
    if posixpath.basename(given) in ("", "%s"):
        return image_of(found, own, sides)
    if given not in claims:
        image = image_of(found, given, sides)
        claims[given] = own, image
        return image
    if (first := claims[given]) is not None:
        before, image = first
        del found.by_id[image.image_id]
        image.image_id = before
        found.by_id[before] = image
        claims[given] = None
    return image_of(found, own, sides)
