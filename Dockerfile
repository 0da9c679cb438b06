# The service, and with it the simulated engines and the load client.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY proto proto
COPY lodestar_extproc lodestar_extproc
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/lodestar \
 && /opt/lodestar/bin/pip install --no-cache-dir "$(ls /wheels/*.whl)[simulator,kubernetes]"

FROM python:3.12-slim
# The home folder takes what numba compiles for this processor.
RUN useradd --create-home --uid 10001 lodestar
COPY --from=build /opt/lodestar /opt/lodestar
ENV PATH=/opt/lodestar/bin:$PATH \
    PYTHONUNBUFFERED=1
USER lodestar
WORKDIR /home/lodestar
# 9002: Envoy. 9090: operators. Neither is for the public.
EXPOSE 9002 9090
ENTRYPOINT ["lodestar-extproc"]
CMD ["--help"]
