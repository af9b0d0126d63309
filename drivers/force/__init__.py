"""Serial force sensor: the driver, and an emulator of the wire."""
