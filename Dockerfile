# The node in a container: docker build -t mammodensity . ; docs/clinic.md says how to run it.
FROM python:3.11-slim

RUN useradd --create-home --uid 10001 mammodensity && install -d -o mammodensity -m 700 /data
COPY . /src
# torch first and pinned: see pyproject.toml
RUN pip install --no-cache-dir -c /src/constraints.txt torch==2.13.0 \
 && pip install --no-cache-dir -c /src/constraints.txt '/src[clinic]' \
 && rm -rf /src

USER mammodensity
VOLUME /data
EXPOSE 11112
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=8)"]
ENTRYPOINT ["mammodensity"]
CMD ["serve", "--data", "/data", "--config", "/etc/mammodensity/node.toml"]
