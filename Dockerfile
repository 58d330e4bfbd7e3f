# epo-server and epo, for CPU and GPU.
#
#   docker build -t epo .                          for the CPU
#   docker build -t epo --build-arg SETUP=--gpu .  also with the CUDA libraries, 2.7 GB more; the host needs NVIDIA's driver and container toolkit
#   docker run -p 127.0.0.1:50051:50051 -v $PWD/models/smollm2-135m:/model:ro -v epo-state:/state epo
#   docker run --gpus all ... epo --model /model --state-dir /state --listen 0.0.0.0:50051 --insecure --device cuda:0
# Whoever reaches the published port may use the server: publish it to 127.0.0.1, or replace --insecure by --tls-cert, --tls-key and
# --api-keys (docs/operations.md).
FROM debian:12 AS build
ARG SETUP
# The libraries are found by the absolute path that they are built with, so this is the path in the final image too.
WORKDIR /opt/epo
COPY . .
RUN scripts/setup $SETUP
RUN mkdir /image && cp -r --parents build/release/bin .venv/lib/python3*/site-packages/torch/lib /image \
  && find .venv/lib/python3*/site-packages/nvidia -path '*/lib/*.so*' -exec cp --parents {} /image \;

FROM debian:12-slim
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
  libgrpc++1.51 libprotobuf32 libspdlog1.10 libfmt9 libpcre2-8-0 libsqlite3-0 libzstd1 libprometheus-cpp-core1.0 libcivetweb1 \
  && rm -rf /var/lib/apt/lists/* && useradd --system --uid 10001 --create-home epo && install -d -o epo -g epo /state
COPY --from=build /image /opt/epo
ENV PATH=/opt/epo/build/release/bin:$PATH EPO_SERVER=127.0.0.1:50051
USER epo
VOLUME /state
EXPOSE 50051
HEALTHCHECK --start-period=120s CMD ["epo", "info"]
ENTRYPOINT ["epo-server"]
CMD ["--model", "/model", "--state-dir", "/state", "--listen", "0.0.0.0:50051", "--insecure"]
