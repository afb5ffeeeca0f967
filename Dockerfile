# statemq with its examples. Build on it, or mount your own module and name it:
#   docker run -v ./mine.py:/app/mine.py IMAGE worker mine.py
# All that pip installs is held to hashes. The base is a tag, which moves; a digest does not (docs/SECURITY.md, "The image"):
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:... .
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
COPY requirements/build.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY statemq statemq
RUN pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir dist .

FROM ${PYTHON_IMAGE}
WORKDIR /app
COPY requirements/run.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/run.txt
COPY --from=build /build/dist dist
RUN pip install --no-cache-dir --no-index --no-deps dist/*.whl && useradd --system statemq

USER statemq
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["statemq"]
CMD ["--help"]
