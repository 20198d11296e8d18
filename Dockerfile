# One image for the three services, the controller, the front door and the pods of Jobs: what a
# container does is its command. It brings the embedded model, so that it runs without a network.
#
#   docker build --target seal -t localhost/seal:dev .
#
# Dependencies, model and code are layers of their own: after a change of the code only the last and
# smallest is made anew. Build arguments: BASE, any image with Python 3.11 or newer and pip; EXTRAS,
# what is installed beside the services; TORCH_INDEX_URL, an index with the build of torch that is
# wanted (CPU builds are a tenth of CUDA's), beside pip's own; MODEL, empty for an image without one.
#
# For GPUs, on an image of vLLM whose torch and vLLM stay what they are:
#
#   docker build --target seal -t localhost/seal:gpu \
#     --build-arg BASE=vllm/vllm-openai:TAG --build-arg TORCH=base --build-arg MODEL= .
ARG BASE=python:3.11-slim-bookworm
# `installed`: from the index, as constraints.txt pins it. `base`: the base brings it.
ARG TORCH=installed

# The project without its code is its requirements. This wheel of nothing else stays the same byte for
# byte while they do, whatever else is changed in pyproject.toml, and so does the layer made from it.
FROM ${BASE} AS requirements
WORKDIR /build
COPY pyproject.toml ./
RUN touch README.md \
 && SOURCE_DATE_EPOCH=315532800 python3 -m pip wheel --no-cache-dir \
      --no-deps --wheel-dir /requirements . \
 && touch --date=@315532800 /requirements/*

FROM ${BASE} AS dependencies
ARG EXTRAS=documents,gcs,k8s,kserve,local,openai,otel,s3
ARG TORCH
ARG TORCH_INDEX_URL=
WORKDIR /build
COPY --from=requirements /requirements/ ./
COPY constraints.txt ./
COPY .ci/image/beside.py ./
RUN wanted="$(ls seal_kubernetes-*.whl)[${EXTRAS}]" \
 && set -- --no-cache-dir --root-user-action=ignore \
      ${TORCH_INDEX_URL:+--extra-index-url "${TORCH_INDEX_URL}"} \
 && if [ "${TORCH}" = base ]; then \
      python3 beside.py constraints constraints.txt > beside.txt \
      && python3 -m pip install "$@" --quiet --dry-run --report report.json \
           --constraint beside.txt "${wanted}" \
      && python3 beside.py lacking report.json > lacking.txt \
      && python3 -m pip install "$@" --target /opt/dependencies --no-deps \
           --requirement lacking.txt; \
    else \
      python3 -m pip install "$@" --target /opt/dependencies \
        --constraint constraints.txt "${wanted}"; \
    fi \
 && rm -rf /opt/dependencies/seal_kubernetes-* /opt/dependencies/bin

FROM ${BASE} AS model
ARG MODEL=smollm2-135m
# Mounted and not copied: the code's next version needs no other model
RUN --mount=type=bind,from=dependencies,source=/opt/dependencies,target=/opt/dependencies \
    --mount=type=bind,target=/source \
    mkdir -p /opt/models \
 && export PYTHONPATH=/source:/opt/dependencies PYTHONDONTWRITEBYTECODE=1 \
 && if [ -n "${MODEL}" ]; then \
      python3 -c 'from controller_svc.cli import main; main()' \
        models pull "${MODEL}" --to /opt/models; \
    fi \
 && chmod -R a+rX /opt/models

FROM ${BASE} AS code
WORKDIR /build
COPY . .
RUN python3 -m pip install --no-cache-dir --root-user-action=ignore --no-deps \
      --target /opt/seal .

# The base without what installs packages; nothing is installed from here on. PyTorch asks for the
# name of its user, which has none where the cluster chooses the number: then it is $USER. A base of vLLM keeps its compiler, which Triton calls at run time.
FROM ${BASE} AS base
ARG TORCH
ENTRYPOINT []
ENV PATH=/opt/seal/bin:${PATH} \
    PYTHONPATH=/opt/seal:/opt/dependencies \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=seal \
    SEAL_MODEL_CACHE=/opt/models
RUN --mount=type=bind,source=.ci/image,target=/image \
    python3 /image/strip.py \
 && { command -v python > /dev/null || ln -s "$(command -v python3)" /usr/local/bin/python; } \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /root/.cache /tmp/* /var/tmp/* \
 && if [ "${TORCH}" = base ]; then stay=--compilers-stay; fi \
 && python3 /image/check.py ${stay:-} / \
 && groupadd --gid 65532 seal \
 && useradd --uid 65532 --gid seal --no-create-home --home-dir /tmp --shell /usr/sbin/nologin seal

# What the image contains, and under which licences
FROM base AS bill
ARG TORCH
RUN --mount=type=bind,source=.ci/image,target=/image \
    --mount=type=bind,from=dependencies,source=/opt/dependencies,target=/opt/dependencies \
    --mount=type=bind,from=model,source=/opt/models,target=/opt/models \
    --mount=type=bind,from=code,source=/opt/seal,target=/opt/seal \
    python3 -m seal.sbom --root / --models /opt/models --to /usr/share/doc/seal \
 && if [ "${TORCH}" = base ]; then stay=--compilers-stay; fi \
 && python3 /image/check.py ${stay:-} /

FROM base AS seal
LABEL org.opencontainers.image.title="seal" \
      org.opencontainers.image.description="A language model that teaches itself, as a service" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
WORKDIR /tmp
CMD ["seal", "--help"]
COPY --from=dependencies /opt/dependencies /opt/dependencies
COPY --from=model /opt/models /opt/models
COPY --from=code /opt/seal /opt/seal
COPY --from=bill /usr/share/doc/seal /usr/share/doc/seal

# The same under a service's name, for those who run containers without a chart.
FROM seal AS generator
CMD ["python3", "-m", "generator_svc"]

FROM seal AS trainer
CMD ["python3", "-m", "trainer_svc"]

FROM seal AS evaluator
CMD ["python3", "-m", "evaluator_svc"]

FROM seal AS controller
CMD ["python3", "-m", "controller_svc.k8s"]

FROM seal AS api
CMD ["python3", "-m", "controller_svc.api"]
