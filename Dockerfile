# The server in a container: over standard input and output by default, over HTTP with arguments. See docs/container.md.
# Tag and digest change together: `docker buildx imagetools inspect python:TAG` says the digest.
ARG PYTHON_IMAGE=python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

FROM ${PYTHON_IMAGE} AS build
ENV PATH=/opt/build/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/build.txt requirements/image.txt requirements/
# Both stages have the same Python at the same path, so what is installed into /opt/lium runs there; what builds
# it stays here.
RUN python -m venv /opt/build \
  && python -m venv --without-pip /opt/lium \
  && pip install --no-deps --require-hashes --requirement requirements/build.txt \
  && pip --python /opt/lium/bin/python install --no-deps --require-hashes --requirement requirements/image.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY lium_mcp lium_mcp
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
  && pip --python /opt/lium/bin/python install --no-deps /wheels/*.whl

FROM ${PYTHON_IMAGE}
# The release says these; the MCP Registry takes no image whose name is not its own.
ARG SERVER_NAME=lium-mcp
ARG VERSION=unreleased
ARG SOURCE=
LABEL io.modelcontextprotocol.server.name="${SERVER_NAME}" \
      org.opencontainers.image.title="Lium MCP" \
      org.opencontainers.image.description="Rent and run GPU pods on Lium, within limits and without surprises" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}"
# What the server keeps is in its home: the ledger of rents, host keys, a key that `login` saved. /work is where files
# are copied from and to. Nothing else is written, so the root may be read-only.
RUN useradd --uid 10001 --user-group --create-home --shell /usr/sbin/nologin lium \
  && install --directory --owner=lium --group=lium /work
COPY --from=build /opt/lium /opt/lium
ENV PATH=/opt/lium/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /work
VOLUME ["/home/lium"]
# No HEALTHCHECK: over standard input and output there is nothing to ask. Over HTTP ask GET /healthz.
ENTRYPOINT ["lium-mcp"]
