# One image for the three services, the controller, the front door and the pods of Jobs: what a
# container does is its command. It brings the embedded model, so that it runs without a network.
#
#   docker build --target seal -t localhost/seal:dev .
#
# Dependencies, model and code are layers of their own: after a change of the code only the last and
# smallest is made anew. Build arguments: BASE, any image with Python 3.11 or newer and pip; EXTRAS,
# what is installed beside the services; TORCH_INDEX_URL, an index with the build of torch that is
# wanted (CPU builds are a tenth of CUDA's), beside pip's own; MODEL, empty for an image without one.
ARG BASE=python:3.11-slim-bookworm

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
ARG TORCH_INDEX_URL=
WORKDIR /build
COPY --from=requirements /requirements/ ./
COPY constraints.txt ./
RUN python3 -m pip install --no-cache-dir --root-user-action=ignore --target /opt/dependencies \
      --constraint constraints.txt ${TORCH_INDEX_URL:+--extra-index-url "${TORCH_INDEX_URL}"} \
      "$(ls seal_kubernetes-*.whl)[${EXTRAS}]" \
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

FROM ${BASE} AS seal
LABEL org.opencontainers.image.title="seal" \
      org.opencontainers.image.description="A language model that teaches itself, as a service" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/seal/bin:${PATH} \
    PYTHONPATH=/opt/seal:/opt/dependencies \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    SEAL_MODEL_CACHE=/opt/models
# Nothing is installed from here on. PyTorch asks for the name of its user.
RUN rm -rf $(python3 -c 'from importlib.util import find_spec as find; \
      print(*(p for n in ("pip", "setuptools", "wheel", "ensurepip") if (s := find(n)) \
              for p in s.submodule_search_locations))') \
 && groupadd --gid 65532 seal \
 && useradd --uid 65532 --gid seal --no-create-home --home-dir /tmp --shell /usr/sbin/nologin seal
USER 65532:65532
WORKDIR /tmp
CMD ["seal", "--help"]
COPY --from=dependencies /opt/dependencies /opt/dependencies
COPY --from=model /opt/models /opt/models
COPY --from=code /opt/seal /opt/seal

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
