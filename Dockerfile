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
# Without a shell or curl: can this container, as it is configured, reach its database and the
# schema? A worker that died has ended its container; whether one makes progress is in /readyz and
# the metrics.
HEALTHCHECK --interval=15s --timeout=10s --start-period=20s --retries=3 \
    CMD ["/usr/bin/postlane", "stats", "--json"]
ENTRYPOINT ["/usr/bin/postlane"]
CMD ["run"]
