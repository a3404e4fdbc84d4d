"""config.pbtxt: what is read, what is refused, and that the text format is protobuf's."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from tickgate.inference import model_config_pb2 as pb
from tickgate_server.models.plain_config import (
    CONFIG_BYTES,
    CONFIG_FILE,
    DATATYPES,
    DeclaredTensor,
    PlainConfig,
    read_config,
)
from tickgate_server.models.plain_errors import PlainPackageInvalid


def config(folder: Path, text: str) -> PlainConfig:
    (folder / CONFIG_FILE).write_text(text)
    return read_config(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "simple"
    found.mkdir()
    return found


def test_a_model_without_one_is_served_as_its_graph_is_in_its_highest_version(folder: Path) -> None:
    found = read_config(folder)
    assert found == PlainConfig()
    assert found.wanted([1, 2, 10]) == [10]


def test_tritons_own_example_is_read(folder: Path) -> None:
    found = config(
        folder,
        """
        name: "simple"  # the folder's
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        input [
          { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
          { name: 'INPUT1', data_type: TYPE_INT32, dims: 16; optional: false }
        ]
        output < name: "OUT" "PUT0" data_type: TYPE_STRING dims: [ -1, 2 ] label_filename: "labels.txt" >
        version_policy: { specific { versions: [1, 3] } }
        parameters { key: "note" value: { string_value: "a\\nb\\x41\\101\\"" } }
        dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
        instance_group [ { count: 2 kind: KIND_CPU } ]
        """,
    )
    assert found == PlainConfig(
        max_batch_size=8,
        inputs=(DeclaredTensor("INPUT0", "INT32", (16,)), DeclaredTensor("INPUT1", "INT32", (16,))),
        outputs=(DeclaredTensor("OUTPUT0", "BYTES", (-1, 2)),),
        latest=0,
        specific=(1, 3),
        parameters={"note": 'a\nbAA"'},
        stated=True,
    )
    assert found.wanted([1, 2, 3, 4]) == [1, 3]


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("latest { num_versions: 2 }", [2, 10]),
        ("latest {}", [10]),
        ("all {}", [1, 2, 10]),
        ("specific { versions: 5 }", []),
    ],
)
def test_a_version_policy_says_which_versions(folder: Path, policy: str, wanted: list[int]) -> None:
    assert config(folder, f"version_policy {{ {policy} }}").wanted([1, 2, 10]) == wanted


REFUSED = {
    'name: "other"': "name: expected 'simple', got 'other'",
    'platform: "tensorrt_plan"': "platform: expected 'onnxruntime_onnx', got 'tensorrt_plan'",
    'backend: "python"': "backend: expected 'onnxruntime', got 'python'",
    "max_batch_size: -1": "max_batch_size: expected 0 to 2147483647, got -1",
    "max_batch_size: many": "max_batch_size: expected an integer, got 'many'",
    'max_batch_size: "8"': "max_batch_size: expected an integer, got '8'",
    "ensemble_scheduling { }": "ensemble_scheduling: not served here",
    "sequence_batching { }": "sequence_batching: not served here",
    "max_bach_size: 8": "max_bach_size: no field of a model configuration",
    'default_model_filename: "../x.onnx"': "default_model_filename: expected the name of a file, got '../x.onnx'",
    'default_model_filename: ".."': "default_model_filename: expected the name of a file, got '..'",
    "version_policy { }": "version_policy: expected one of",
    "version_policy { latest { num_versions: 0 } }": "version_policy: expected one of",
    "version_policy { specific { } }": "version_policy: expected one of",
    "input { data_type: TYPE_INT8 }": "input[0].name: expected a name of its own, got ''",
    'input { name: "x" data_type: TYPE_BF16 }': "input[0].data_type: expected one of TYPE_BOOL",
    'input { name: "x" data_type: TYPE_INT8 dims: -2 }': "input[0].dims: expected sizes, or -1 for any, got [-2]",
    'input { name: "x" data_type: TYPE_INT8 reshape { shape: [1] } }': "input[0].reshape: not served here",
    'input { name: "x" data_type: TYPE_INT8 optional: true }': "input[0].optional: not served here",
    'output { name: "x" data_type: TYPE_INT8 } output { name: "x" data_type: TYPE_INT8 }': "output[1].name: expected a",
    "name simple": "line 1: expected ':' or a message, got 'simple'",
    "\n\nname: [\n": "line 4: expected a value, got 'the end'",
    "input { name: 'x'": "line 1: expected a field's name, got 'the end'",
    "name: 'x": "line 1: expected something else",
    "}": "line 1: expected a field's name, got '}'",
    "input: 3": "input[0]: expected a message in braces, got '3'",
    "name: simple": "name: expected a string in quotes",
    'default_model_filename: "\\q"': "unknown escape",
    'name: "simple" name: "simple"': "name: expected one value, got 2",
    "max_batch_size: 9223372036854775808": "max_batch_size: expected an integer",
    "input { dims: [1,] }": "line 1: expected a value, got ']'",
    "a {" * 40: "expected at most 32 messages in one another",
    "# " + "x" * CONFIG_BYTES: "expected at most 1,048,576 bytes",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:40])
def test_what_cannot_be_served_is_refused_with_the_file_and_the_reason(folder: Path, text: str) -> None:
    with pytest.raises(PlainPackageInvalid) as error:
        config(folder, text)
    assert error.value.path == folder / CONFIG_FILE
    assert REFUSED[text] in error.value.why


def test_a_file_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / CONFIG_FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(PlainPackageInvalid, match="utf-8"):
        read_config(folder)


def test_the_types_are_those_of_the_contract() -> None:
    assert set(DATATYPES) == set(pb.DataType.keys()) - {"TYPE_INVALID", "TYPE_BF16"}


names = st.text(min_size=1, max_size=12)
tensors = st.lists(
    st.builds(
        DeclaredTensor,
        names,
        st.sampled_from(list(DATATYPES.values())),
        st.lists(st.integers(-1, 2**63 - 1), max_size=4).map(tuple),
    ),
    max_size=3,
    unique_by=lambda one: one.name,
).map(tuple)
configs = st.builds(
    PlainConfig,
    max_batch_size=st.integers(0, 2**31 - 1),
    inputs=tensors,
    outputs=tensors,
    latest=st.integers(0, 5),
    parameters=st.dictionaries(names, st.text(max_size=12), max_size=3),
    stated=st.just(True),
)


def message(said: PlainConfig) -> pb.ModelConfig:
    """The same as protobuf has it."""
    types = {datatype: name for name, datatype in DATATYPES.items()}

    def declared(kind: type, one: DeclaredTensor) -> pb.ModelInput:
        found: pb.ModelInput = kind(name=one.name, data_type=pb.DataType.Value(types[one.datatype]), dims=one.dims)
        return found

    made = pb.ModelConfig(
        max_batch_size=said.max_batch_size,
        input=[declared(pb.ModelInput, one) for one in said.inputs],
        output=[declared(pb.ModelOutput, one) for one in said.outputs],  # type: ignore[misc]
        parameters={name: pb.ModelParameter(string_value=value) for name, value in said.parameters.items()},
    )
    if said.latest:
        made.version_policy.latest.num_versions = said.latest
    else:
        made.version_policy.all.SetInParent()
    return made


@given(said=configs, one_line=st.booleans(), short=st.booleans(), escaped=st.booleans())
def test_what_protobuf_writes_is_read_as_it_was_meant(
    tmp_path_factory: pytest.TempPathFactory, *, said: PlainConfig, one_line: bool, short: bool, escaped: bool
) -> None:
    text = text_format.MessageToString(
        message(said), as_one_line=one_line, use_short_repeated_primitives=short, as_utf8=not escaped
    )
    folder = tmp_path_factory.getbasetemp() / "written"
    folder.mkdir(exist_ok=True)
    assert config(folder, text) == said


@given(said=configs, data=st.data())
def test_what_protobuf_refuses_is_refused_and_the_rest_means_the_same(
    tmp_path_factory: pytest.TempPathFactory, said: PlainConfig, data: st.DataObject
) -> None:
    text = text_format.MessageToString(message(said))
    at = data.draw(st.integers(0, len(text)))
    put = data.draw(st.sampled_from(["", "{", "}", "[", "]", ":", ",", ";", '"', "\\", "1", "x", "-", "#", "\n"]))
    text = text[:at] + put + text[at + data.draw(st.integers(0, 2)) :]
    folder = tmp_path_factory.getbasetemp() / "written"
    folder.mkdir(exist_ok=True)
    try:
        found = config(folder, text)
    except PlainPackageInvalid:
        return
    expected = text_format.Parse(text, pb.ModelConfig())
    assert [(one.name, one.dims) for one in found.inputs] == [(one.name, tuple(one.dims)) for one in expected.input]
    assert found.max_batch_size == expected.max_batch_size
    assert found.parameters == {name: value.string_value for name, value in expected.parameters.items()}
