"""Runs in openpi-client's environment: its client, or a server made of its codec as openpi's is.

``openpi_peer.py client PORT [API_KEY]`` asks twice and prints what it got as JSON;
``openpi_peer.py server`` prints its port and answers until its input ends, and so does
``openpi_peer.py own_server CHECKOUT`` with the server of a checkout of openpi.
"""

import asyncio
import json
import os
import socket
import sys

import numpy as np
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy


class Ramp:
    """Row `k` is the state plus ``k`` plus the images' means over 1000."""

    def infer(self, seen):
        if seen["prompt"] == "fail":
            raise ValueError("told to fail")
        images = float(seen["observation/image"].mean() + seen["observation/wrist_image"].mean())
        return {"actions": seen["observation/state"][None] + np.arange(5)[:, None] + images / 1e3}


def observation(tick):
    random = np.random.default_rng(tick)
    return {
        "observation/image": random.integers(0, 255, (48, 64, 3), np.uint8),
        "observation/wrist_image": random.integers(0, 255, (24, 32, 3), np.uint8),
        "observation/state": np.linspace(0.1, 0.6, 6) + tick / 10,
        "prompt": f"do {tick}",
    }


def client(port, api_key=None):
    policy = WebsocketClientPolicy("127.0.0.1", port, api_key)
    replies = [policy.infer(observation(tick)) for tick in range(2)]
    out = {
        "metadata": sorted(policy.get_server_metadata()),
        "actions": [reply["actions"].tolist() for reply in replies],
        "dtype": str(replies[0]["actions"].dtype),
        "timing": replies[0]["server_timing"]["infer_ms"] >= 0,
    }
    bad = observation(0)
    del bad["observation/image"]
    try:
        policy.infer(bad)
    except RuntimeError as error:
        out["error"] = str(error)
    print(json.dumps(out), flush=True)


async def server():
    from websockets.asyncio.server import serve

    async def answer(socket):
        packer = msgpack_numpy.Packer()
        await socket.send(packer.pack({"action_horizon": 5}))
        async for message in socket:
            seen = msgpack_numpy.unpackb(message)
            if seen["prompt"] == "fail":
                await socket.send("Traceback (most recent call last):\nValueError: told to fail")
                await socket.close(1011, "Internal server error.")
                return
            await socket.send(packer.pack({**Ramp().infer(seen), "server_timing": {"infer_ms": 1.0}}))

    async with serve(answer, "127.0.0.1", 0, compression=None, max_size=None) as running:
        print(running.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def own_server(checkout):
    sys.path.insert(0, f"{checkout}/src")
    from openpi.serving.websocket_policy_server import WebsocketPolicyServer

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = asyncio.create_task(
        WebsocketPolicyServer(Ramp(), "127.0.0.1", port, {"action_horizon": 5}).run()
    )
    while not running.done():
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            await asyncio.sleep(0.05)
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)  # cancelled, it would wait for the last client to say goodbye


if __name__ == "__main__":
    if sys.argv[1] == "client":
        client(int(sys.argv[2]), *sys.argv[3:])
    elif sys.argv[1] == "own_server":
        asyncio.run(own_server(sys.argv[2]))
    else:
        asyncio.run(server())
