# statemq with its examples. Build on it, or mount your own module and name it:
#   docker run -v ./mine.py:/app/mine.py IMAGE worker mine.py
FROM python:3.13-slim

WORKDIR /app
COPY requirements/run.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/run.txt

COPY pyproject.toml README.md LICENSE ./
COPY statemq statemq
RUN pip install --no-cache-dir --no-deps . && useradd --system statemq

USER statemq
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["statemq"]
CMD ["--help"]
