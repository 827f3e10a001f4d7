# One image per dependency group, built from the folder that `python -m pipelines.build_images` lays out: requirements.txt (the group's packages
# of uv.lock, by hash) and in app/ the files that the group's stages import. Nothing is installed when a container starts.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS base
ARG GROUP
# Only Spark runs on Java, only LightGBM asks for OpenMP.
RUN case "$GROUP" in spark) needs=openjdk-17-jre-headless ;; train*) needs=libgomp1 ;; *) exit 0 ;; esac \
    && apt-get update -qq && apt-get install -y -qq --no-install-recommends $needs && rm -rf /var/lib/apt/lists/*

FROM base AS build
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --quiet --no-cache-dir uv==0.13.9 && python3 -m venv --without-pip /opt/promolift
WORKDIR /build
COPY requirements.txt ./
# The list is closed: every package with its version and hashes, so that nothing is resolved here.
# What no stage runs goes: the packages' own tests, and LiteRT's plugins for other accelerators and command-line tools.
RUN UV_NO_CACHE=1 /opt/uv/bin/uv pip install --quiet --python /opt/promolift --no-deps --require-hashes --compile-bytecode -r requirements.txt \
    && rm -f /opt/promolift/.lock && cd /opt/promolift/lib/python3.11/site-packages && rm -rf \
      ai_edge_litert/tools ai_edge_litert/vendors ai_edge_litert/libLiteRtWebGpuAccelerator.so \
    && find . -type d -name tests -prune -exec rm -rf {} +
ARG GROUP
COPY app /app
# Spark's jars are part of the image: a driver on a cluster asks no repository.
RUN mkdir -p /opt/jars && if [ "$GROUP" = spark ]; then \
      cd /app && PYTHONPATH=/app:/app/src PROMOLIFT_JARS=/opt/jars /opt/promolift/bin/python -m spark_jobs.fetch_jars; \
    fi
RUN python3 -m compileall -q /app

FROM base
# Hadoop starts for nobody whom the list of users does not have.
RUN useradd --uid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin promolift
COPY --from=build /opt/promolift /opt/promolift
COPY --from=build /opt/jars /opt/jars
COPY --from=build /app /app
# The root file system may be read-only: what is written goes to /tmp or to a volume.
ENV PATH=/opt/promolift/bin:$PATH PYTHONPATH=/app:/app/src PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    PROMOLIFT_JARS=/opt/jars TF_USE_LEGACY_KERAS=1
WORKDIR /app
USER 10001:10001
