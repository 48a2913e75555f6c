"""Reads a .safetensors file without the package: eight bytes of length, a header in JSON, the numbers."""

import json
import mmap

import numpy as np

TYPES = {"F32": np.float32, "F64": np.float64, "U32": np.uint32, "U64": np.uint64}


def read(path):
    """The tensors by name, and what lawsmith says of them."""
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header.pop("__metadata__")["lawsmith"])
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        kind = TYPES[entry["dtype"]]
        numbers = np.frombuffer(data, kind, (end - begin) // np.dtype(kind).itemsize, 8 + length + begin)
        tensors[name] = numbers.reshape(entry["shape"])
    return tensors, about
