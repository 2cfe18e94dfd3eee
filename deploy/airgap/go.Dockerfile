# A Go program from the module proxy, at a fixed version, in an image of its own: MinIO, Prometheus.
ARG DEBIAN_IMAGE=debian:bookworm-slim
FROM ${DEBIAN_IMAGE} AS build
ARG APT_MIRROR
ARG CERTIFICATES=deploy/airgap/certificates
COPY ${CERTIFICATES}/ /usr/local/share/ca-certificates/
COPY deploy/images/prepare.sh /prepare.sh
RUN sh /prepare.sh && apt-get update -q && apt-get install -y -q --no-install-recommends golang-go ca-certificates
# Debian's Go is too old for them. It fetches a newer one as it fetches any module.
ARG GOPROXY
ARG GONOSUMDB
ARG GO_VERSION
RUN go mod download golang.org/toolchain@v0.0.1-go${GO_VERSION}.linux-$(dpkg --print-architecture) \
    && chmod -R +x /root/go/pkg/mod/golang.org/toolchain*/bin /root/go/pkg/mod/golang.org/toolchain*/pkg/tool \
    && ln -s /root/go/pkg/mod/golang.org/toolchain*/bin/go /usr/local/bin/go
# Built in the module's own folder, so that its `replace` lines hold.
ARG MODULE
ARG VERSION
RUN /usr/local/bin/go mod download ${MODULE}@${VERSION} && cp -r /root/go/pkg/mod/${MODULE}@${VERSION} /module && chmod -R u+w /module
ARG PACKAGES=.
RUN mkdir /out && cd /module && CGO_ENABLED=0 GOFLAGS=-buildvcs=false /usr/local/bin/go build -trimpath -ldflags="-s -w" -o /out/ ${PACKAGES} \
    && rm -rf /root/.cache

FROM ${DEBIAN_IMAGE}
COPY --from=build /out/ /usr/local/bin/
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Its data lie in a volume, which takes over the folder's owner.
ARG DATA=/data
ARG OWNER=1000:1000
RUN mkdir -p ${DATA} && chown ${OWNER} ${DATA}
ARG PROGRAM
RUN ln -s /usr/local/bin/${PROGRAM} /usr/local/bin/program
USER ${OWNER}
WORKDIR /tmp
ENTRYPOINT ["program"]
