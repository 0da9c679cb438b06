# Two images:
#
#   docker build -t lodestar-extproc .                                the service alone
#   docker build -t lodestar-extproc-simulator --target simulator .   with simulated engines and load
#
# Both are installed by the lock files of requirements/, hash by hash.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
# For the kernel; in this stage alone.
ENV LODESTAR_KERNEL=required
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements requirements
RUN pip install --require-hashes --requirement requirements/build.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY proto proto
COPY lodestar_extproc lodestar_extproc
RUN pip wheel --no-build-isolation --no-deps --wheel-dir /wheels .

FROM build AS install-simulator
RUN python -m venv --without-pip /opt/lodestar \
 && pip --python /opt/lodestar install --require-hashes --requirement requirements/simulator.lock \
 && pip --python /opt/lodestar install --no-deps /wheels/*.whl

FROM build AS install-serve
RUN python -m venv --without-pip /opt/lodestar \
 && pip --python /opt/lodestar install --require-hashes --requirement requirements/serve.lock \
 && pip --python /opt/lodestar install --no-deps /wheels/*.whl \
 # SciPy's own tests and types for checkers are an eighth of it all, and nobody imports them.
 && find /opt/lodestar/lib/python3*/site-packages/scipy -type d -name tests -prune -exec rm -r {} + \
 && find /opt/lodestar -name '*.pyi' -delete

FROM python:3.13-slim AS base
# The home folder takes what numba compiles for this processor, in the image that has numba.
RUN useradd --create-home --uid 10001 lodestar
ENV PATH=/opt/lodestar/bin:$PATH \
    PYTHONUNBUFFERED=1
# By number: Kubernetes refuses a name where a pod may not run as root and names no user itself.
USER 10001
WORKDIR /home/lodestar
ENTRYPOINT ["lodestar-extproc"]
CMD ["--help"]
# Of the checkout that is built, where the builder says it.
ARG SOURCE=""
ARG REVISION=""
ARG VERSION=""
LABEL org.opencontainers.image.title="Lodestar" \
      org.opencontainers.image.description="An Envoy external processor that routes LLM requests by learned time to first token" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.version="$VERSION"

FROM base AS simulator
COPY --from=install-simulator /opt/lodestar /opt/lodestar

# The last stage is what is built where no target is named.
FROM base AS serve
COPY --from=install-serve /opt/lodestar /opt/lodestar
# 9002: Envoy. 9090: operators. Neither is for the public.
EXPOSE 9002 9090
# Alive, not ready: without an engine it is well. Who starts it with another `--admin` says so here.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9090/healthz', timeout=2)"]
