"""How a row of the contract is written down: a dataclass whose fields carry their Arrow types and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")
MASK = pa.struct([pa.field("size", pa.list_(pa.int32())), pa.field("counts", pa.utf8())])


def column(
    kind: pa.DataType, meaning: str, *, null: bool = True, unit: str = "", opc: str = "", shown: str = ""
) -> Any:
    """A dataclass field that is a column.

    Args:
        kind: Arrow type.
        meaning: for the page of the contract, a few words.
        null: may be missing; such a field is None by default.
        unit: "px", "ms"; empty for none.
        opc: its name in OPC UA 40001-101 or 40100-1, where it has one.
        shown: name of the type on the page; empty for Arrow's own.
    """
    metadata = {
        "type": kind,
        "meaning": meaning,
        "null": null,
        "unit": unit,
        "opc": opc,
        "shown": shown or str(kind),
    }
    return field(default=None, metadata=metadata) if null else field(metadata=metadata)


@dataclass(frozen=True)
class Contract:
    """What a kind of row is called outside.

    Attributes:
        name: "result".
        version: grows with each column that is added.
        schema: Arrow schema; name and version are in its metadata.
    """

    name: str
    version: int
    schema: pa.Schema

    @classmethod
    def of(cls, row: type, name: str, version: int) -> Contract:
        """The contract of a row class: one column per field, in their order."""
        columns = [pa.field(f.name, f.metadata["type"], nullable=f.metadata["null"]) for f in fields(row)]
        return cls(name, version, pa.schema(columns, {"schema": f"dapo.{name}", "version": str(version)}))

    @property
    def urn(self) -> str:
        """Value of the CloudEvents header `ce_dataschema`."""
        return f"urn:dapo-inspection:{self.name}:{self.version}"

    # Kept, since asking Arrow for them takes longer than encoding a row.

    @cached_property
    def head(self) -> bytes:
        """What every stream of this contract begins with: the schema's message."""
        return bytes(self.schema.serialize())

    @cached_property
    def struct(self) -> pa.StructType:
        """A whole row as one type."""
        return pa.struct(list(self.schema))

    @cached_property
    def nested(self) -> tuple[str, ...]:
        """Columns of lists and structs."""
        return tuple(column.name for column in self.schema if pa.types.is_nested(column.type))

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Columns that have a value in every row."""
        return tuple(column.name for column in self.schema if not column.nullable)

    @cached_property
    def checked(self) -> tuple[tuple[str, pa.Field], ...]:
        """Columns in which a null may be wrong, by name."""
        return tuple((c.name, c) for c in self.schema if not c.nullable or c.name in self.nested)
