# Worker, archiver, feeder, simulated cameras and every `dapo` command that needs no model: without torch. With
# --build-arg EXTRAS=train also those that do: retune, drift, gate, evaluate (6 GB, of torch's libraries).
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
# A plant's own mirror and authority, see deploy/airgap/certificates/README.md.
ARG PIP_INDEX_URL
ARG CERTIFICATES=deploy/airgap/certificates
COPY ${CERTIFICATES}/ /usr/local/share/ca-certificates/
COPY deploy/images/prepare.sh /prepare.sh
RUN sh /prepare.sh
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# Dependencies first: they change seldom, the code often.
COPY pyproject.toml deploy/images/requirements.py ./
ARG EXTRAS=
ENV SITE=/opt/dapo/lib/python3.11/site-packages
# Of Arrow's libraries 50 MB serve Flight and its own S3 client, which nothing here loads.
RUN python3 -m venv --without-pip /opt/dapo && python3 requirements.py $EXTRAS > requirements.txt \
    && python3 -m pip --python /opt/dapo/bin/python install -r requirements.txt \
    && rm -rf $SITE/pyarrow/libarrow_flight* $SITE/pyarrow/libarrow_python_flight* $SITE/pyarrow/libarrow_s3* \
        $SITE/pyarrow/include \
    && find $SITE -depth -type d -name tests -exec rm -rf {} +
COPY . .
RUN python3 -m pip --python /opt/dapo/bin/python install --no-deps . \
    && cd /tmp && /opt/dapo/bin/python -c "import pyarrow.parquet, pipeline.stream.compose, deploy.demo.camera, minio, pycocotools.mask" \
    && /opt/dapo/bin/dapo types >/dev/null

# Without the caches and manuals of the base, which a later layer could only hide.
FROM ${PYTHON_IMAGE} AS base
RUN rm -rf /var/cache/apt/* /var/lib/apt/lists/* /usr/share/man/* /usr/share/locale/* \
    && find /usr/share/doc -type f ! -name copyright -delete

FROM scratch
COPY --from=base / /
COPY --from=build /opt/dapo /opt/dapo
RUN install -d -o 10001 -g 10001 /var/lib/dapo
ENV PATH=/opt/dapo/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["dapo"]
CMD ["--help"]
