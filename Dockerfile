# One binary and the certificates of public authorities; a user that is nobody; nothing to write to
# but /var/lib/postlane (for SQLite). Configuration: POSTLANE_… variables, or a mounted
# /etc/postlane/postlane.toml.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin postlane \
    && install -D -m 755 target/release/postlane /out/postlane

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -m 700 -o 65532 -g 65532 /var/lib/postlane
COPY --from=build /out/postlane /usr/bin/postlane
USER 65532:65532
WORKDIR /var/lib/postlane
STOPSIGNAL SIGTERM
# /readyz, which needs no token: can this worker read its database, and write down what it sends?
# (`postlane stats` would ask another process, and count the whole table for it.) The port is that of
# POSTLANE_ADMIN__LISTEN; whoever configures another address elsewhere, or none, needs another check.
HEALTHCHECK --interval=15s --timeout=10s --start-period=20s --retries=3 \
    CMD ["bash", "-c", "a=${POSTLANE_ADMIN__LISTEN-:9464}; exec 3<>/dev/tcp/127.0.0.1/${a##*:} && printf 'GET /readyz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["/usr/bin/postlane"]
CMD ["run"]
