# Triton from its wheel, laid out as the published image has it, with what the models import.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
ARG PIP_INDEX_URL
ARG CERTIFICATES=deploy/airgap/certificates
COPY ${CERTIFICATES}/ /usr/local/share/ca-certificates/
COPY deploy/images/prepare.sh /prepare.sh
RUN sh /prepare.sh
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# No dependencies: the wheel asks for numpy < 2, and only its server is wanted.
ARG TRITON_WHEEL
RUN python3 -m pip install --no-deps --no-compile --target /opt/pytriton nvidia-pytriton==${TRITON_WHEEL} \
    && cd /opt/pytriton/pytriton/tritonserver \
    && cp python_backend_stubs/3.11/triton_python_backend_stub backends/python/
WORKDIR /src
COPY pyproject.toml deploy/images/requirements.py ./
RUN python3 -m venv --without-pip /opt/dapo && python3 requirements.py model > requirements.txt \
    && python3 -m pip --python /opt/dapo/bin/python install -r requirements.txt
COPY . .
RUN python3 -m pip --python /opt/dapo/bin/python install --no-deps . && /opt/dapo/bin/dapo triton repository /models

FROM ${PYTHON_IMAGE}
ARG APT_MIRROR
ARG CERTIFICATES=deploy/airgap/certificates
COPY ${CERTIFICATES}/ /usr/local/share/ca-certificates/
COPY deploy/images/prepare.sh /prepare.sh
# The Python backend is linked to libpython; where the image has none, Debian's is of the same version.
RUN sh /prepare.sh && ldconfig && { ldconfig -p | grep -q libpython3.11.so.1.0 \
    || { apt-get update -q && apt-get install -y -q --no-install-recommends libpython3.11 && rm -rf /var/lib/apt/lists/*; }; } \
    && ln -s /opt/pytriton/pytriton/tritonserver /opt/tritonserver
COPY --from=build /opt/pytriton /opt/pytriton
COPY --from=build /opt/dapo /opt/dapo
COPY --from=build /models /models
ENV PATH=/opt/dapo/bin:/opt/tritonserver/bin:$PATH LD_LIBRARY_PATH=/opt/pytriton/nvidia_pytriton.libs \
    PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001:10001
WORKDIR /tmp
