"""Every kind of row of the contract."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

from schemas import defects, labels, parts, results, status
from schemas.columns import Contract
from schemas.defects import DefectRow
from schemas.labels import LabelRow
from schemas.parts import PartRow
from schemas.results import ResultRow
from schemas.status import StatusRow

AnyRow: TypeAlias = ResultRow | DefectRow | PartRow | StatusRow | LabelRow
Row = TypeVar("Row", bound=AnyRow)

CONTRACTS: dict[type, Contract] = {
    ResultRow: results.CONTRACT,
    DefectRow: defects.CONTRACT,
    PartRow: parts.CONTRACT,
    StatusRow: status.CONTRACT,
    LabelRow: labels.CONTRACT,
}
