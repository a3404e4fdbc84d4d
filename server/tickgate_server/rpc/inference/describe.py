"""Models as the protocol describes them."""

from collections.abc import Sequence

from tickgate.inference import grpc_service_pb2 as pb
from tickgate.inference import model_config_pb2 as config_pb
from tickgate_server.models.plain import Counted, PlainModel, RunStatistics, TensorSpec
from tickgate_server.models.plain_config import BACKEND, DATATYPES, PLATFORM
from tickgate_server.models.plain_repository import IndexEntry

_TYPES = {datatype: config_pb.DataType.Value(name) for name, datatype in DATATYPES.items()}


def metadata(model: PlainModel, versions: Sequence[int]) -> pb.ModelMetadataResponse:
    """What a version takes and gives, whole shapes; with the versions to name."""

    def tensor(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
        return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.dims)

    return pb.ModelMetadataResponse(
        name=model.name,
        versions=map(str, versions),
        platform=PLATFORM,
        inputs=map(tensor, model.inputs),
        outputs=map(tensor, model.outputs),
    )


def configuration(model: PlainModel, threads: int) -> pb.ModelConfigResponse:
    """How a version is served: its configuration, completed from the graph.

    Args:
        model: The version.
        threads: Of inference, all models'.
    """
    said = model.config
    batch = 1 if said.max_batch_size else 0  # dims leave it out
    policy = config_pb.ModelVersionPolicy()
    if said.specific:
        policy.specific.versions.extend(said.specific)
    elif said.latest:
        policy.latest.num_versions = said.latest
    else:
        policy.all.SetInParent()
    return pb.ModelConfigResponse(
        config=config_pb.ModelConfig(
            name=model.name,
            platform=PLATFORM,
            backend=BACKEND,
            version_policy=policy,
            max_batch_size=said.max_batch_size,
            input=[
                config_pb.ModelInput(name=spec.name, data_type=_TYPES[spec.datatype], dims=spec.dims[batch:])
                for spec in model.inputs
            ],
            output=[
                config_pb.ModelOutput(name=spec.name, data_type=_TYPES[spec.datatype], dims=spec.dims[batch:])
                for spec in model.outputs
            ],
            instance_group=[
                config_pb.ModelInstanceGroup(name=model.name, count=threads, kind=config_pb.ModelInstanceGroup.KIND_CPU)
            ],
            default_model_filename=said.model_file,
            parameters={
                key: config_pb.ModelParameter(string_value=value) for key, value in sorted(said.parameters.items())
            },
        )
    )


def statistics(model: PlainModel, found: RunStatistics) -> pb.ModelStatistics:
    """What a version has done."""

    def duration(counted: Counted) -> pb.StatisticDuration:
        return pb.StatisticDuration(count=counted.count, ns=counted.ns)

    return pb.ModelStatistics(
        name=model.name,
        version=str(model.version),
        last_inference=found.last_ms,
        inference_count=found.rows,
        execution_count=found.success.count,
        inference_stats=pb.InferStatistics(
            success=duration(found.success),
            fail=duration(found.fail),
            queue=duration(found.queue),
            compute_input=duration(found.compute_input),
            compute_infer=duration(found.compute_infer),
            compute_output=duration(found.compute_output),
        ),
    )


def index(entries: Sequence[IndexEntry], *, ready: bool) -> pb.RepositoryIndexResponse:
    """What is in the repository; with `ready` only what can be asked."""
    return pb.RepositoryIndexResponse(
        models=[
            pb.RepositoryIndexResponse.ModelIndex(
                name=entry.name,
                version="" if entry.version is None else str(entry.version),
                state=entry.state or "",
                reason=entry.reason,
            )
            for entry in entries
            if not ready or entry.state == "READY"
        ]
    )
