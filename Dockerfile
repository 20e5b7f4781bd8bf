# pianolm in an image, on CPUs:
#   docker build -t pianolm . && docker run --rm -v "$PWD:/work" pianolm stage=generate prompt=my.mid
# With CUDA, the index of PyTorch for a version of it, and --gpus all for docker run:
#   docker build -t pianolm --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
FROM python:3.12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY . /src
WORKDIR /src
RUN python -m pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint constraints.txt .
RUN pianolm --version
WORKDIR /work
ENTRYPOINT ["pianolm"]
