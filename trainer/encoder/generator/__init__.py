"""Procedural industrial surfaces with labelled defects: what dapo-tiny learns from. numpy and OpenCV only."""

from trainer.encoder.generator.catalogue import (
    DEFECT_NAMES,
    DEFECTS,
    FAMILIES,
    HELD_OUT_FAMILIES,
    TRAIN_FAMILIES,
    VALIDATION_FAMILIES,
    Family,
    defects_for,
)
from trainer.encoder.generator.sampler import Sample, apply_defect, augment, draw_clean, draw_sample

__all__ = [
    "DEFECTS",
    "DEFECT_NAMES",
    "FAMILIES",
    "HELD_OUT_FAMILIES",
    "TRAIN_FAMILIES",
    "VALIDATION_FAMILIES",
    "Family",
    "Sample",
    "apply_defect",
    "augment",
    "defects_for",
    "draw_clean",
    "draw_sample",
]
