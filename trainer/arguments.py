"""What options of `dapo retune` say: each by itself, and together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from dapo.errors import SettingsError
from dapo.vocabulary import slugify

if TYPE_CHECKING:
    from trainer.tuning.cache import Variant

_MOST_DAYS = 3660


def together(
    data: str | None,
    from_archive: bool,
    since: str | None,
    auto: bool,
    *,
    by_hand: Mapping[str, object],
    of_auto: Mapping[str, object],
) -> None:
    """Refuse options that say nothing together.

    Args:
        by_hand: options that are not for --auto, None where they are not given.
        of_auto: those that are for it alone.

    Raises:
        SettingsError: names them.
    """
    if (data is None) != from_archive:
        raise SettingsError(
            "say what to learn from: --data DATA, or --from-archive with --since 30d; one of them."
        )
    if since is not None and not from_archive:
        raise SettingsError("--since: is of --from-archive. Give both, or --data archive:30d.")
    if auto and not from_archive:
        raise SettingsError("--auto: works on the archive. Give --from-archive with it.")
    for name, value in by_hand.items():
        if auto and value is not None:
            raise SettingsError(
                f"{name}: not with --auto, which takes the registry's champion, and splits parts by a lasting rule."
            )
    for name, value in of_auto.items():
        if not auto and value is not None:
            raise SettingsError(f"{name}: is of --auto, and does nothing without it.")


def listed(text: str) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def variants(text: str) -> tuple[Variant, ...]:
    """`--mirror`: frames as they are, and mirrored so.

    Raises:
        SettingsError: one is no mirroring.
    """
    from trainer.tuning.cache import VARIANTS

    named = {str(variant): variant for variant in VARIANTS}
    wanted = listed(text)
    for one in wanted:
        if one not in named:
            raise SettingsError(f"--mirror {one}: expected h, v or hv.")
    return ("", *(named[one] for one in wanted))


def days(text: str) -> timedelta:
    """`--every`: "28d".

    Raises:
        SettingsError: it says no days.
    """
    number = text.removesuffix("d")
    if not (text.endswith("d") and number.isascii() and number.isdigit() and 0 < int(number) <= _MOST_DAYS):
        raise SettingsError(f"--every {text}: expected days, such as 28d.")
    return timedelta(days=int(number))


def rate(text: str) -> tuple[str, float]:
    """`--type-false-alarm-rate`: slug of a type, and its share of false alarms.

    Raises:
        SettingsError: it says neither.
    """
    slug, _, share = text.partition("=")
    try:
        return slugify(slug), float(share)
    except ValueError as error:
        raise SettingsError(
            f"--type-false-alarm-rate {text}: expected TYPE=RATE, such as crack=0.05."
        ) from error
