# The app as a container: docs/deploy.md tells how to build and run it.
#
# Plain Debian is the smallest base that works: torch's wheels bring the CUDA runtime with them, so
# an nvidia/cuda image would hold it a second time.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS packages
# cuda or cpu
ARG DEVICE=cuda
# Where torch comes from; empty is PyPI for cuda, and PyTorch's own CPU wheels for cpu.
ARG TORCH_INDEX=""
# 1 adds mamba-ssm and causal-conv1d, which our own kernels make unnecessary.
ARG LIBRARIES=0
SHELL ["/bin/sh", "-eu", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /build
COPY requirements.txt ./
RUN if [ "$DEVICE" = cpu ]; then index=https://download.pytorch.org/whl/cpu; \
    else index=https://pypi.org/simple; fi; \
    pip install --no-cache-dir --index-url "${TORCH_INDEX:-$index}" -c requirements.txt torch \
    && pip install --no-cache-dir -r requirements.txt
# Their own installers fetch the wheel that fits torch, CUDA and Python; where there is none, the
# imports fail, and so does the build.
RUN if [ "$LIBRARIES" = 1 ]; then \
        pip install --no-cache-dir "ninja>=1.11" "packaging>=24" "setuptools>=77" "wheel>=0.45" \
        && MAMBA_SKIP_CUDA_BUILD=TRUE CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE \
           pip install --no-cache-dir --no-build-isolation --no-deps \
           "mamba-ssm>=2.2.4,<2.4" "causal-conv1d>=1.5,<2" "einops>=0.8,<1" \
        && python -c "import torch, causal_conv1d_cuda, selective_scan_cuda"; \
    fi

FROM ${BASE}
ARG DEVICE=cuda
# Triton compiles a launcher for each kernel at its first use: with gcc, against Python's headers.
# hadolint ignore=DL3008,SC2046
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
       $([ "$DEVICE" = cpu ] || echo gcc libc6-dev libpython3-dev) \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 user
COPY --from=packages /opt/venv /opt/venv
USER 1000
ENV HOME=/home/user \
    PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/home/user/.cache/huggingface \
    TRITON_CACHE_DIR=/home/user/.cache/triton \
    NUMBA_CACHE_DIR=/home/user/.cache/numba \
    GRADIO_TEMP_DIR=/tmp/gradio \
    FALCON_MAMBA_HOST=0.0.0.0 \
    FALCON_MAMBA_PORT=7860
# Made here, so that a volume mounted there belongs to the user.
RUN mkdir -p "$HOME/.cache/huggingface" "$HOME/app"
WORKDIR /home/user/app
COPY app.py ./
COPY falcon_mamba_app falcon_mamba_app/
COPY assets assets/
EXPOSE 7860
# The first start may download 15 GB.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30m --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/health')"]
ENTRYPOINT ["python", "app.py"]
