"""The port beside the live originals: every case, random draws, two TensorFlows, differences."""
