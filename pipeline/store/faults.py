"""From what minio-py and urllib3 raise to the two kinds of `pipeline.store.errors`."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from xml.etree.ElementTree import ParseError

from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import HTTPError, SSLError

from dapo.errors import DapoError
from pipeline.store.errors import Conflict, NotFound, StoreError, StoreUnavailable, UploadDamaged

_DAMAGED = {
    "BadDigest",
    "InvalidDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    "IncompleteBody",
}
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage"}
# Transient though their status says 4xx.
_BUSY = {"SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "RequestTimeout", "OperationAborted"}
_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_CONFLICT = {"PreconditionFailed", "ConditionalRequestConflict"}
_RETRY_STATUS = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
_STATUS = re.compile(r"Response code: (\d{3})")
# OpenSSL's words for a peer that does not speak TLS at all: no retry mends that.
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what the block raises into a StoreUnavailable or a StoreError that begins with `what`.

    Args:
        what: server and operation, "http://127.0.0.1:9000: put frames/a.png".
    """
    try:
        yield
    except S3Error as error:
        raise refused(what, error.response.status, error.code or "", error.message or "") from error
    except ServerError as error:
        raise refused(what, error.status_code, "", "") from error
    except InvalidResponseError as error:
        found = _STATUS.search(str(error))  # the library says it nowhere else
        status = int(found[1]) if found else 0
        if status == HTTPStatus.NOT_FOUND:  # said by something else of everything: no word about this object
            raise StoreError(
                f"{what}: 404, not an S3 server's answer. Check store.endpoint and store.tls."
            ) from error
        raise refused(what, status, "", "not an S3 server's answer") from error
    except SSLError as error:
        raise _tls(what, error) from error
    except (ParseError, UnicodeDecodeError) as error:
        raise StoreUnavailable(f"{what}: the answer was cut off or garbled ({error}).") from error
    except (HTTPError, OSError) as error:
        advice = "Is the server up, the network there, and store.tls as the server has it?"
        raise StoreUnavailable(f"{what}: {_said(error)}. {advice}") from error


def refused(what: str, status: int, code: str, message: str) -> DapoError:
    """The error of an answer that is not a success: HTTP status, and S3's code and message where there are any."""
    said = f"{what}: {status} {code or 'without a reason'}{f', {message}' if message else ''}"
    if code in _DAMAGED:
        return UploadDamaged(f"{said}. What arrived is not what was sent.")
    if code in _CONFLICT or status == HTTPStatus.PRECONDITION_FAILED:
        return Conflict(f"{said}. Another writer was first: read it again.")
    if code in _FULL or status == HTTPStatus.INSUFFICIENT_STORAGE:
        return StoreUnavailable(
            f"{said}. Free space on the store ('dapo archive prune'), or raise its quota."
        )
    if code in _BUSY or status in _RETRY_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return StoreUnavailable(f"{said}.")
    if code == "NoSuchBucket":
        return StoreError(f"{said}. Create the bucket, or set store.bucket.")
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(f"{said}.")
    if code in _CREDENTIALS:
        return StoreError(f"{said}. Check store.access_key and store.secret_key.")
    if code == "RequestTimeTooSkewed":
        return StoreError(f"{said}. Set the clocks of this machine and of the server.")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return StoreError(f"{said}. Give this user the policy of its role (deploy/policies).")
    return StoreError(f"{said}. Check store.endpoint and store.tls.")


def _tls(what: str, error: SSLError) -> DapoError:
    cause = error.args[0] if error.args else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return StoreError(
            f"{what}: the server's certificate is not trusted ({cause.verify_message}). "
            "Set store.ssl_cafile to the authority that signed it."
        )
    if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
        return StoreError(
            f"{what}: the server does not speak TLS. Set store.tls to false, or turn TLS on there."
        )
    return StoreUnavailable(f"{what}: {_said(error)}.")


def _said(error: Exception) -> str:
    """The innermost message: urllib3 wraps what the system said."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    return str(inner).rstrip(".") or type(inner).__name__
