"""Names in a store: checked before they are sent, so that every S3 server and every file system takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipeline.store.errors import BadName

_MAX_KEY = 1024  # bytes; S3's limit
_MAX_SEGMENT = 255  # bytes; of one name on the file systems that some servers keep objects on
# Subset of what S3 documents as safe. No leading dot: servers on plain files keep their own things there.
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*")
_METADATA_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_METADATA_VALUE = re.compile(r"[\x20-\x7e]{0,1024}")
_MAX_METADATA = 2048  # bytes; S3's limit
_URI = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)")
SHA256 = "sha256"  # metadata name of the content's hash; every `put` sets it


def checked_key(key: str) -> str:
    """`key` itself, where it is a safe name of an object.

    Raises:
        BadName: it is not.

    >>> checked_key("frames/line-1/cam_2/2026/01/31/a.png")
    'frames/line-1/cam_2/2026/01/31/a.png'
    """
    if len(key) > _MAX_KEY:
        raise BadName(f"object key of {len(key)} characters: at most {_MAX_KEY} are possible.")
    for segment in key.split("/"):
        if not _SEGMENT.fullmatch(segment) or len(segment) > _MAX_SEGMENT:
            raise BadName(
                f"object key {key!r}: a part between slashes must have 1 to {_MAX_SEGMENT} of A-Z a-z 0-9 _ . = - "
                f"and begin with neither dot, dash nor '='; found {segment!r}."
            )
    return key


def checked_prefix(prefix: str) -> str:
    """`prefix` itself, where it is the beginning of a safe key, or empty.

    Raises:
        BadName: it is not.
    """
    # Cut anywhere: what is missing of the last segment may follow.
    checked_key(f"{prefix}x")
    return prefix


def checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """A copy of `metadata`, where every server gives it back as it was.

    Raises:
        BadName: a name is not of a-z 0-9 -, a value not printable ASCII, or all together exceed 2048 bytes.
    """
    for name, value in metadata.items():
        # Surrounding blanks are HTTP's, not the value's.
        if (
            not (_METADATA_NAME.fullmatch(name) and _METADATA_VALUE.fullmatch(value))
            or value != value.strip()
        ):
            raise BadName(
                f"metadata {name!r}: {value!r} can't be stored: lower-case name, printable ASCII value."
            )
    size = sum(len(name) + len(value) for name, value in metadata.items())
    if size > _MAX_METADATA:
        raise BadName(f"metadata of {size} bytes: at most {_MAX_METADATA} are possible.")
    return dict(metadata)


def s3_uri(bucket: str, key: str) -> str:
    """How an object is named outside.

    >>> s3_uri("inspection", "frames/a.png")
    's3://inspection/frames/a.png'
    """
    return f"s3://{bucket}/{checked_key(key)}"


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """(bucket, key) of an s3 URI, key checked.

    Raises:
        BadName: it is none.
    """
    found = _URI.fullmatch(uri)
    if found is None:
        raise BadName(f"{uri!r} is no object: expected s3://BUCKET/KEY.")
    return found[1], checked_key(found[2])
