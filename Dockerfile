# docker build -t driverwatch --build-arg UID="$(id -u)" .    # CPU; NVIDIA GPU: -t driverwatch:cuda --build-arg ACCELERATOR=cuda beside it
# mkdir -p .venv; docker run --rm -it -v "$PWD:/driverwatch" -v driverwatch-venv:/driverwatch/.venv driverwatch demo
# The checkout is mounted, so data, weights, packs, runs, folds and submissions stay on the host; .venv is the image's, in a volume (without
# mkdir, Docker would make its mount point, and root would own it)
#   NVIDIA GPU: --gpus all -v driverwatch-venv-cuda:/driverwatch/.venv driverwatch:cuda, with NVIDIA's container toolkit
#   Kaggle's token: -e KAGGLE_API_TOKEN, or -v "$HOME/.kaggle:/home/driver/.kaggle:ro"; make serve: --network host
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm
ARG ACCELERATOR=cpu
ARG UID=1000
# make reads ACCELERATOR: targets use the environment that was built below; Keras keeps the weights that it downloads in the checkout
ENV ACCELERATOR=${ACCELERATOR} KERAS_HOME=/driverwatch/build/keras PYTHONUNBUFFERED=1
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
