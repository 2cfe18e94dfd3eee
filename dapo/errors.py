"""Errors a user can meet, one tree (others that stand nearer to what they are about derive from it too).

DapoError                      base: message says what, where and what to do
+-- SettingsError              a setting is unknown or has a wrong value
+-- PackError                  a prompt pack can't be read, or contradicts itself
|   +-- EncoderMismatch        the pack was made for another encoder (both hashes are named)
+-- WeightsNotFound            encoder weights are neither bundled, cached nor at the given path
+-- CheckpointError            a reference checkpoint does not fit (tensor, expected and found shape)
+-- VocabularyError            a defect word can't be used (empty, or two words with one slug)
+-- SourceError                a source of frames can't be opened
+-- FrameError                 one frame can't be inspected (poison): carries a reason code
+-- OutputError                results can't be written (disk full, no permission)
+-- ServiceUnavailable         a server is away, or too slow: the same call may work later
+-- LogRefused                 the broker will never take it (no such topic, no permission, too large)
    +-- Fenced                 another process writes under this one's transactional id
"""

from __future__ import annotations


class DapoError(Exception):
    """Base of every error that is shown to a user as one message, without a stack trace."""


class SettingsError(DapoError):
    """A setting is unknown or has a wrong value."""


class PackError(DapoError):
    """A prompt pack can't be read, or contradicts itself."""


class EncoderMismatch(PackError):
    """A pack names another encoder than the one that is loaded."""


class WeightsNotFound(DapoError):
    """Encoder weights are neither bundled, cached nor at the given path."""


class CheckpointError(DapoError):
    """A reference checkpoint does not fit this encoder."""


class VocabularyError(DapoError):
    """A defect word can't be used."""


class SourceError(DapoError):
    """A source of frames can't be opened."""


class FrameError(DapoError):
    """One frame can't be inspected, now or ever: it goes to the dead letters.

    Args:
        code: reason code, kebab-case and stable, for machines ("not-an-image").
        message: what, where and what to do, for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class OutputError(DapoError):
    """Results can't be written."""


class ServiceUnavailable(DapoError):
    """A server is away or too slow. Transient: back off and try again, for as long as it takes."""


class LogRefused(DapoError):
    """The broker will never take what it was given."""


class Fenced(LogRefused):
    """Another process writes under this one's transactional id; this one has to end."""
