# The published Triton with what the models import: torch, open_clip, OpenVINO and the project's own packages.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:25.08-py3
FROM ${TRITON_IMAGE}
ARG PIP_INDEX_URL
ARG CERTIFICATES=deploy/airgap/certificates
USER root
COPY ${CERTIFICATES}/ /usr/local/share/ca-certificates/
COPY deploy/images/prepare.sh /prepare.sh
RUN sh /prepare.sh
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_BREAK_SYSTEM_PACKAGES=1
WORKDIR /src
COPY pyproject.toml deploy/images/requirements.py ./
RUN python3 requirements.py model > requirements.txt && pip install -r requirements.txt
COPY . .
RUN pip install --no-deps . && dapo triton repository /models && rm -rf /src/*
ENV PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001:10001
WORKDIR /tmp
