# Kafka from the artifacts of its release, by Maven; set up by KAFKA_... variables as the published image is.
ARG DEBIAN_IMAGE=debian:bookworm-slim
FROM ${DEBIAN_IMAGE} AS build
ARG APT_MIRROR
ARG CERTIFICATES=deploy/airgap/certificates
COPY ${CERTIFICATES}/ /usr/local/share/ca-certificates/
COPY deploy/images/prepare.sh /prepare.sh
RUN sh /prepare.sh && apt-get update -q && apt-get install -y -q --no-install-recommends maven openjdk-17-jdk-headless ca-certificates-java
ARG MAVEN_MIRROR
ARG KAFKA_VERSION
COPY deploy/airgap/kafka/pom.xml deploy/airgap/kafka/settings.xml /build/
RUN cd /build && mvn --batch-mode --no-transfer-progress $([ -z "$MAVEN_MIRROR" ] || echo --settings settings.xml) \
    -Dmirror="$MAVEN_MIRROR" -Dkafka.version=${KAFKA_VERSION} dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=/opt/kafka/libs

FROM ${DEBIAN_IMAGE}
ARG APT_MIRROR
ARG CERTIFICATES=deploy/airgap/certificates
COPY ${CERTIFICATES}/ /usr/local/share/ca-certificates/
COPY deploy/images/prepare.sh /prepare.sh
RUN sh /prepare.sh && apt-get update -q && apt-get install -y -q --no-install-recommends openjdk-17-jre-headless && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/kafka /opt/kafka
COPY deploy/airgap/kafka/run /opt/kafka/run
RUN mkdir -p /var/lib/kafka/data && chown 1000:1000 /var/lib/kafka/data
USER 1000:1000
WORKDIR /tmp
CMD ["bash", "/opt/kafka/run"]
