# SPDX-License-Identifier: Apache-2.0
# CPU:   docker build -t lipsync-bench .
# CUDA:  docker build -t lipsync-bench:cuda --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 \
#            --build-arg TORCH=https://pypi.org/simple .
# Use:   docker run --rm -v "$PWD:/data" lipsync-bench evaluate --pred mine --target real --out results
#        with --gpus all for the CUDA image; --entrypoint lightning to train; --shm-size 8g for loaders with many workers
# BASE is any Debian or Ubuntu with Python 3.10 to 3.12, or whose package python3 is one. Torch's wheels of the registry
# bring CUDA's libraries themselves, so that the base needs none; those of TORCH's default are for CPUs, and 4 GB smaller.
ARG BASE=python:3.11-slim-bookworm
# hadolint ignore=DL3006
FROM ${BASE}
ARG TORCH=https://download.pytorch.org/whl/cpu

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# OpenCV's wheel needs the first two; all other libraries come with the wheels. Python where the base has none.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && { python3 -c "import ensurepip" || apt-get install -y --no-install-recommends python3 python3-venv; } \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

# What changes rarely comes first: torch, then the other packages, then this one.
WORKDIR /opt/lipsync_bench
COPY constraints.txt ./
RUN pip install --index-url "${TORCH}" --extra-index-url https://pypi.org/simple -c constraints.txt torch torchvision
COPY . .
RUN pip install -c constraints.txt . && bench --help > /dev/null && python -c "import cv2, dlib, mediapipe"

# Files are written as the user that runs the container: docker run --user "$(id -u):$(id -g)"
RUN mkdir -m 777 /home/anyone
ENV HOME=/home/anyone USER=anyone
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["bench"]
CMD ["--help"]
