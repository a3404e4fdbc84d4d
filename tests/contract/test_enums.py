import re
from enum import IntEnum

import grpc
import pytest
from google.protobuf.descriptor import EnumDescriptor, FileDescriptor

import tickgate.v1
from tickgate.v1 import admin_pb2, market_data_pb2, market_pb2, model_pb2, portfolio_pb2, signal_pb2, topology_pb2
from tickgate_server.journal.entries import STATUSES
from tickgate_server.risk import reasons, regimes, reports

FILES: list[FileDescriptor] = [
    module.DESCRIPTOR
    for module in (admin_pb2, market_data_pb2, market_pb2, model_pb2, portfolio_pb2, signal_pb2, topology_pb2)
]
ENUMS: list[EnumDescriptor] = [enum for file in FILES for enum in file.enum_types_by_name.values()]


@pytest.mark.parametrize(
    ("twin", "prefix", "contract"),
    [
        (reasons.Reason, "REASON_", signal_pb2.Reason),
        (reasons.Action, "ACTION_", signal_pb2.Action),
        (regimes.Regime, "REGIME_", signal_pb2.Regime),
        (regimes.TradingState, "TRADING_STATE_", signal_pb2.TradingState),
        (reports.Side, "SIDE_", portfolio_pb2.Side),
        (reports.OrderState, "ORDER_STATE_", portfolio_pb2.OrderState),
    ],
)
def test_the_engines_enum_has_the_contracts_names_and_numbers(twin: type[IntEnum], prefix: str, contract: type) -> None:
    known = {f"{prefix}{member.name}": member.value for member in twin}
    assert known | {f"{prefix}UNSPECIFIED": 0} == dict(contract.items())


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.name)
def test_an_enums_values_carry_its_name_and_zero_is_unspecified(enum: EnumDescriptor) -> None:
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper()
    assert enum.values_by_number[0].name == f"{prefix}_UNSPECIFIED"
    assert all(value.name.startswith(f"{prefix}_") for value in enum.values)


def test_messages_in_the_same_package_have_lower_snake_case_fields() -> None:
    fields = [
        field.name for file in FILES for message in file.message_types_by_name.values() for field in message.fields
    ]
    assert fields
    assert [name for name in fields if not re.fullmatch(r"[a-z][a-z0-9_]*", name)] == []


def test_the_package_exports_every_message_and_enum() -> None:
    defined = {name for file in FILES for name in (*file.message_types_by_name, *file.enum_types_by_name)}
    assert defined <= set(tickgate.v1.__all__)
    assert all(hasattr(tickgate.v1, name) for name in tickgate.v1.__all__)


def test_the_metrics_name_status_codes_as_grpc_numbers_them() -> None:
    assert dict(enumerate(STATUSES)) == {code.value[0]: code.name for code in grpc.StatusCode}
