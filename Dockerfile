# syntax=docker/dockerfile:1
# blip3o-grpo in a container, for CPUs (the default) or for NVIDIA GPUs; docs/docker.md says what of this was built.
#
#   docker build -t blip3o-grpo:cpu .
#   docker build -t blip3o-grpo:cuda --target cuda .
#
# Both install the locked packages of requirements/ and the checkout itself, editable, in /opt/blip3o-grpo.

# What the packages' libraries need of the system, and a user who is not root.
FROM python:3.11-slim-bookworm AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        g++ libgl1 libglib2.0-0 libgomp1 libnuma1 libsm6 libxext6 tini \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 grpo \
    && install -d -o grpo -g grpo /opt/blip3o-grpo /opt/blip3o-grpo/runs \
        /opt/blip3o-grpo/data /opt/blip3o-grpo/checkpoints /opt/blip3o-grpo/models
ENV PATH=/opt/blip3o-grpo/.venv/bin:$PATH
WORKDIR /opt/blip3o-grpo

# The CPU environment, as scripts/setup_env.sh makes it everywhere.
FROM base AS cpu-environment
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=cache,target=/root/.cache/uv bash scripts/setup_env.sh

# The CUDA environment. The packages bring CUDA's own libraries; the driver is the host's (NVIDIA Container Toolkit).
FROM base AS cuda-environment
COPY requirements/cuda.txt requirements/cuda.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv .venv && .venv/bin/pip install --no-deps -r requirements/cuda.txt
COPY . .
RUN .venv/bin/pip install --no-deps --no-build-isolation --editable . \
    && .venv/bin/python scripts/link_package.py .venv/editable

FROM base AS cuda
COPY --from=cuda-environment --chown=grpo:grpo /opt/blip3o-grpo /opt/blip3o-grpo
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER grpo
ENTRYPOINT ["tini", "-g", "--", "blip3o-grpo"]
CMD ["--help"]

# The last stage is what `docker build` makes by default.
FROM base AS cpu
COPY --from=cpu-environment --chown=grpo:grpo /opt/blip3o-grpo /opt/blip3o-grpo
USER grpo
ENTRYPOINT ["tini", "-g", "--", "blip3o-grpo"]
CMD ["--help"]
