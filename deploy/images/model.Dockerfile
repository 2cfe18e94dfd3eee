# The published Triton with what the models import: torch, open_clip, OpenVINO and the project's own packages.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:25.08-py3
FROM ${TRITON_IMAGE} AS build
ARG PIP_INDEX_URL
ARG CERTIFICATES=deploy/airgap/certificates
USER root
COPY ${CERTIFICATES}/ /usr/local/share/ca-certificates/
COPY deploy/images/prepare.sh /prepare.sh
RUN sh /prepare.sh
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml deploy/images/requirements.py ./
RUN python3 -m venv --without-pip /opt/dapo && python3 requirements.py model > requirements.txt \
    && python3 -m pip --python /opt/dapo/bin/python install -r requirements.txt
COPY . .
RUN python3 -m pip --python /opt/dapo/bin/python install --no-deps . && /opt/dapo/bin/dapo triton repository /models

FROM ${TRITON_IMAGE}
COPY --from=build /opt/dapo /opt/dapo
COPY --from=build /models /models
ENV PATH=/opt/dapo/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001:10001
WORKDIR /tmp
