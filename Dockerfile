# epo-server and epo, for CPU and GPU.
#
#   docker build -t epo:cpu .
#   docker build -t epo:gpu --target gpu .    with the CUDA libraries, 2.7 GB more; the host needs NVIDIA's driver and container toolkit
#   docker run --stop-timeout 45 -p 127.0.0.1:50051:50051 -v $PWD/models/smollm2-135m:/model:ro -v epo-state:/state epo:cpu
#   docker run --stop-timeout 45 -p 127.0.0.1:50051:50051 -v $PWD/models/phi-2:/model:ro -v epo-state:/state --gpus all epo:gpu
#
# Whoever reaches the published port may use the server: publish it to 127.0.0.1, or end the command with flags of your own in place of
# CMD's (docs/operations.md). deploy/check_dockerfile.py runs these steps where there is no engine, and knows the instructions used here.
FROM debian:12.11-slim AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# The libraries are found by the absolute path that they are built with, so this is the path in the final image too.
WORKDIR /opt/epo
COPY scripts scripts
RUN scripts/setup --dependencies
COPY CMakeLists.txt CMakePresets.json ./
COPY cmake cmake
COPY proto proto
COPY core core
COPY server server
COPY client client
RUN . scripts/common.sh; cmake --preset release -DEPO_BUILD_TESTS=OFF -DEPO_BUILD_BENCH=OFF; \
  cmake --build --preset release --parallel "$(build_jobs)" --target epo epo-server
# /image: the programs, and what they load that is not Debian's.
RUN mkdir /image; programs="$PWD/build/release/bin/epo $PWD/build/release/bin/epo-server"; \
  ldd $programs | awk '$3 ~ "^/opt/epo/" {print $3}' | sort -u | xargs realpath -s | xargs cp --parents -t /image $programs

FROM build AS build-gpu
RUN scripts/setup --dependencies --gpu
RUN cp -r --parents "$PWD"/.venv/lib/python3*/site-packages/torch/lib /image; \
  cp --parents "$PWD/build/release/bin/libepo_cuda.so" /image; \
  find "$PWD"/.venv/lib/python3*/site-packages/nvidia -path '*/lib/*.so*' -exec cp --parents -t /image {} +

FROM debian:12.11-slim AS runtime
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
  libgrpc++1.51 libprotobuf32 libspdlog1.10 libfmt9 libpcre2-8-0 libsqlite3-0 libzstd1 libprometheus-cpp-core1.0 libcivetweb1 \
  zlib1g librsvg2-bin \
  && rm -rf /var/lib/apt/lists/* && useradd --uid 10001 --user-group --home-dir /state --no-create-home epo && install -d -o epo -g epo /state
# EPO_SERVER is what the health check asks; a server with TLS wants EPO_TLS_CA too, and EPO_SERVER=localhost:50051 or another of the
# certificate's names.
ENV PATH=/opt/epo/build/release/bin:$PATH EPO_SERVER=127.0.0.1:50051
USER 10001:10001
VOLUME /state
EXPOSE 50051 9464
HEALTHCHECK --start-period=600s --interval=30s --timeout=20s CMD ["epo", "health"]
ENTRYPOINT ["epo-server", "--model", "/model", "--state-dir", "/state", "--metrics-listen", "0.0.0.0:9464"]
CMD ["--listen", "0.0.0.0:50051", "--insecure"]

FROM runtime AS gpu
COPY --from=build-gpu /image /
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM runtime AS cpu
COPY --from=build /image /
