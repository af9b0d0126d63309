"""SmolVLA, trained here, and with inputs that LeRobot's has not; its network is `policies.lerobot`'s."""
