"""Feetech STS3215 servo bus (SO-100 and SO-101 arms): the driver, and an emulator of the wire."""
