# The image of sentinel-gate: one static binary and nothing else.
#
#   podman build --build-arg VERSION=v1.2.3 --build-arg REVISION=$(git rev-parse HEAD) --tag sentinel-gate:v1.2.3 .
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=v1.2.3 --tag sentinel-gate:v1.2.3 .
#
# Both base images are arguments, so that they can come from a mirror, or be
# pinned by digest. There is no "syntax" line: it would be a third image.

ARG GO_IMAGE=golang:1.26
# scratch, because whatever else the image holds has to be scanned and updated,
# and the gate needs none of it: no shell, no user database, no time zones. It
# also needs no certificate authorities of its own: the API server's comes with
# the ServiceAccount's token, that of a Prometheus with TLS is mounted and named
# in the step's tls_config.
ARG BASE_IMAGE=scratch

# The compiler runs on the builder's own architecture, and compiles for the
# target's: no emulation. Builders set BUILDPLATFORM by themselves; a buildah that
# does not (1.28) needs --build-arg BUILDPLATFORM=linux/amd64.
FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
# Never a toolchain from the network.
ENV GOTOOLCHAIN=local CGO_ENABLED=0
# The modules are a layer of their own, that a change of the source leaves. Where
# GO_IMAGE holds them already nothing is downloaded, and no network is needed.
COPY go.mod go.sum ./
RUN go mod download
COPY checks checks
COPY cmd cmd
COPY gate gate
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=unknown
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /sentinel-gate ./cmd/sentinel-gate

FROM ${BASE_IMAGE}
COPY --from=build /sentinel-gate /sentinel-gate
# For "kubectl exec POD -- sentinel-gate --once".
ENV PATH=/
# A user of the gate's own, not 65532 that many images share: whoever runs as
# the same user may write in the gated directory.
USER 9817:9817
EXPOSE 9817
ENTRYPOINT ["/sentinel-gate"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sentinel-gate" \
      org.opencontainers.image.description="Decides when kured may see that a node needs a reboot" \
      org.opencontainers.image.source="https://github.com/sentinel-gate/sentinel-gate" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
