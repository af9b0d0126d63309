"""LeRobot's asynchronous inference: pickles in protobuf messages over gRPC."""
