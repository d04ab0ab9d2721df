# docker build -t driverwatch .                                  # CPU
# docker build -t driverwatch:cuda --build-arg ACCELERATOR=cuda . # NVIDIA GPU: docker run --gpus all, with NVIDIA's container toolkit
# docker run --rm -v "$PWD/data:/driverwatch/data" -v "$PWD/build:/driverwatch/build" driverwatch train MODEL=tiny DATASET=demo
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm
ARG ACCELERATOR=cpu
ARG UID=1000
# make reads it: targets use the environment that was built below
ENV ACCELERATOR=${ACCELERATOR} PYTHONUNBUFFERED=1
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid "${UID}" driver \
    && install -d -o driver /driverwatch /driverwatch/data /driverwatch/build
WORKDIR /driverwatch
USER ${UID}
# the libraries alone, so that a change of the code leaves this layer as it is; CUDA's come with TensorFlow's wheels
COPY --chown=driver Makefile ./
COPY --chown=driver requirements requirements
COPY --chown=driver scripts/install.py scripts/install.py
RUN make setup && .venv/bin/python -m compileall -q -j 0 .venv && rm -rf /home/driver/.cache/pip
COPY --chown=driver . .
ENTRYPOINT ["make"]
CMD ["help"]
