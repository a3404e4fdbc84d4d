# syntax=docker/dockerfile:1
# The server alone, installed by the steps that `make` runs. Build from the repository's root:
#   docker build -t tickgate .
#   docker run -p 50051:50051 -p 9464:9464 -v "$PWD/models:/models:ro" tickgate

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY deploy/check-system deploy/install deploy/
COPY requirements/server.txt requirements/
COPY pyproject.toml README.md LICENSE ./
COPY proto proto
COPY server server
COPY client client
COPY training training
# LightGBM is training's; the server needs no libgomp of its own.
RUN TICKGATE_NEEDS=server deploy/check-system python3 \
 && python3 -m venv /opt/tickgate \
 && EDITABLE= deploy/install /opt/tickgate/bin/python requirements/server.txt
# Kernels are compiled here, for the CPU that builds; another CPU compiles them again at its first start.
RUN TICKGATE_KERNEL_CACHE=/opt/tickgate/kernels /opt/tickgate/bin/python -c 'import tickgate_server.app'

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home tickgate \
 && install -d -o tickgate -g tickgate /var/lib/tickgate
COPY --from=build --chown=tickgate:tickgate /opt/tickgate /opt/tickgate
ENV PATH=/opt/tickgate/bin:$PATH \
    TICKGATE_KERNEL_CACHE=/opt/tickgate/kernels \
    TICKGATE_MODELS__REPOSITORY=/models \
    TICKGATE_JOURNAL__FOLDER=/var/lib/tickgate/journal \
    TICKGATE_SERVER__LISTEN=0.0.0.0:50051 \
    TICKGATE_SERVER__SERVICE_LISTEN=0.0.0.0:51051 \
    TICKGATE_SERVER__METRICS_LISTEN=0.0.0.0:9464
USER tickgate
WORKDIR /var/lib/tickgate
VOLUME /var/lib/tickgate
EXPOSE 50051 51051 9464
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["tickgate", "health"]
ENTRYPOINT ["tickgate", "serve"]
