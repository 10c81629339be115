# syntax=docker/dockerfile:1
# monitord in a container: the first stage builds (with a compiler, for the loops that are C), the second one runs.
#   docker build -t monitord .        docker compose -f deploy/compose.yaml up -d
ARG PYTHON=3.13-slim-bookworm

FROM python:${PYTHON} AS build
# No versions: Debian keeps only its newest, and a pinned one would break the build the day after.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/monitord
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY feeds feeds
COPY rules rules
COPY notifiers notifiers
COPY monitord monitord
RUN /opt/monitord/bin/pip install --no-cache-dir --prefer-binary .

FROM python:${PYTHON}
RUN groupadd --system --gid 10001 monitord \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/monitord --shell /usr/sbin/nologin monitord \
    && install -d -o monitord -g monitord -m 0700 /var/lib/monitord \
    && install -d -m 0755 /etc/monitord /run/secrets
COPY --from=build /opt/monitord /opt/monitord
ENV PATH=/opt/monitord/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    MONITORD_STATE_DIR=/var/lib/monitord \
    MONITORD_LOG__FORMAT=json \
    CREDENTIALS_DIRECTORY=/run/secrets
USER 10001:10001
WORKDIR /etc/monitord
VOLUME /var/lib/monitord
EXPOSE 8710
# Ready: the journal is run through, the broker takes alerts, the loop is in time. Its port is 8710 unless this is changed.
# Without a proxy: http_proxy is for receivers, and the proxy would be asked for its own 127.0.0.1.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:8710/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["monitord"]
CMD ["run"]
