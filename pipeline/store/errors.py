"""What can go wrong with the object store: two kinds, and what to do about each.

ServiceUnavailable (dapo.errors)   transient: keep what you have, back off, try again
+-- StoreUnavailable               away, too slow, overloaded or full
    +-- UploadDamaged              what arrived is not what was sent
StoreError                         permanent: the same call will fail again
+-- NotFound                       no such object
+-- Conflict                       another writer was first: read again, then decide
+-- ObjectDamaged                  the stored bytes are not those that were stored
+-- TooLarge                       the object is above a limit
+-- BadName                        a key, prefix, metadata or URI that no store is asked for

A plain StoreError says that nothing will work: credentials, bucket, permission, clock, certificate.
"""

from __future__ import annotations

from dapo.errors import DapoError, ServiceUnavailable


class StoreUnavailable(ServiceUnavailable):
    """The store is away, too slow, overloaded or full. Of a conditional put nobody knows whether it happened."""


class UploadDamaged(StoreUnavailable):
    """The server got other bytes than were sent. Whatever lies under the key now is overwritten by the next try."""


class StoreError(DapoError):
    """The store will not do it, now or later: wrong key, bucket, credentials or permission."""


class NotFound(StoreError):
    """There is no such object."""


class Conflict(StoreError):
    """A conditional put came second: the object is there already, is another by now, or is gone."""


class ObjectDamaged(StoreError):
    """An object's bytes do not have the SHA-256 they were stored with."""


class TooLarge(StoreError):
    """An object is above a limit; nothing of it was read or written."""


class BadName(StoreError):
    """A key, prefix, metadata or URI can't be one; nothing was sent."""


# What is wrong with one object and with no other: whoever reads many passes over it, and stops at every other StoreError.
OF_ONE_OBJECT = (NotFound, ObjectDamaged, TooLarge, BadName)
