"""Records of a driver as JSON with a schema number: states, and manifests of saved machines."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from vc_core.driver_kit.ownership import write_private_file
from vc_core.spec import HypervisorError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)
else:
    T = TypeVar("T")


def encode_record(record: DataclassInstance, schema: int) -> str:
    """Returns a dataclass as JSON.

    Args:
        record: its fields have types that msgspec supports: numbers, text, enums, tuples,
            dataclasses.
        schema: the number of its format; changed with every change of the fields.
    """
    fields = msgspec.to_builtins(record)
    return msgspec.json.encode({"schema": schema, **fields}).decode()


def decode_record(text: str | bytes, kind: type[T], schema: int, subject: str) -> T:
    """Returns a dataclass from the text of `encode_record`.

    Args:
        text: the JSON.
        kind: the dataclass.
        schema: the number of the format that this driver reads.
        subject: what the record is about, for messages.

    Raises:
        HypervisorError: it is damaged, lacks a field, or has another schema number.
    """
    try:
        fields = msgspec.json.decode(text, type=dict[str, Any])
        if "schema" in fields and fields["schema"] != schema:
            raise HypervisorError(
                f"{subject} was written by another version of this driver "
                f"(schema {fields['schema']!r}, not {schema}); use that version"
            )
        for name in ("schema", *(field.name for field in dataclasses.fields(kind))):
            if name not in fields:
                raise HypervisorError(f"{subject} is damaged: it has no field {name!r}")
        return msgspec.convert(fields, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HypervisorError(f"{subject} is damaged: {error}") from error


def write_manifest(path: Path, record: DataclassInstance, schema: int) -> None:
    """Writes a record into a file that only this user can read."""
    write_private_file(path, encode_record(record, schema))


def read_manifest(path: Path, kind: type[T], schema: int) -> T:
    """Reads the record of a saved machine from its folder.

    Raises:
        HypervisorError: it is missing, damaged, or of another version.
    """
    subject = f"the saved machine in {path.parent}"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise HypervisorError(f"{subject} cannot be read: {error}") from error
    return decode_record(text, kind, schema, subject)
