"""Writes tests/data/*.h5 and *.hdf5, the fixtures of the HDF5 reader (h5py 3.16, HDF5 2.0)."""

import h5py
import numpy as np

FOLDER = "tests/data/"
rows = np.arange(6)

for name, libver in [("arrays.h5", None), ("arrays_latest.h5", "latest")]:
    with h5py.File(FOLDER + name, "w", libver=libver) as f:
        for kind in ["f2", "f4", "f8", ">f4", ">f8", "i1", "i2", "i4", "i8", ">i4"]:
            f["t" + kind.replace(">", "big_")] = (0.5 * rows - 1).astype(kind)
        for kind in ["u1", "u2", "u4", "u8", ">u2"]:
            f["t" + kind.replace(">", "big_")] = rows.astype(kind)
        f["truth"] = rows % 2 == 0
        f["large"] = 2**60 + rows
        f["word"] = np.array([b"a", b"bc", b"", b"d", b"e", b"f"])
        f["text"] = np.array(["a", "é", "", "d", "e", "f"], dtype=h5py.string_dtype())
        f["complex"] = rows + 1j
        f["half"] = 0.5
        f["nothing"] = h5py.Empty("f8")
        f["inner/x"] = rows + 10
        f["other/x"] = rows + 20
        f["other/y"] = rows + 30.0
        f.create_dataset("chunked", data=rows.reshape(3, 2), chunks=(2, 2), maxshape=(None, 2))
        if libver is None:
            f.create_dataset("packed", data=np.tile(rows, 3), compression="gzip", shuffle=True, fletcher32=True)
            f.create_dataset("lzf", data=np.zeros(600), compression="lzf")
        f.attrs["BoxSize"] = 7.5

with h5py.File(FOLDER + "frame.h5", "w") as f:
    # As pandas writes to_hdf(…, format="table", data_columns=True).
    kinds = [("index", "i8"), ("x", "f8"), ("name", "S3"), ("v", "f4", (2,)), ("y", "i4")]
    table = np.zeros(6, dtype=kinds)
    table["x"], table["y"], table["name"], table["v"] = 0.5 * rows, rows**2, b"ab", [[1, 2]]
    f["df/table"] = table

with h5py.File(FOLDER + "orbits.h5", "w") as f:
    # [run, frame, body, dim]
    f["x"] = np.random.default_rng(0).normal(size=(2, 12, 3, 2)).cumsum(axis=1)
    f["t"] = 0.1 * np.arange(12)

# Five groups of Gadget-4 in kpc/h and 1e10 Msun/h, in two pieces; z = 1.
for piece, some in [(0, slice(0, 3)), (1, slice(3, 5))]:
    with h5py.File(FOLDER + f"groups.{piece}.hdf5", "w") as f:
        header, parameters = f.create_group("Header"), f.create_group("Parameters")
        header.attrs.update({"BoxSize": 10000.0, "Redshift": 1.0, "NumFiles": np.int32(2)})
        units = {"UnitLength_in_cm": 3.085678e21, "UnitMass_in_g": 1.989e43, "UnitVelocity_in_cm_per_s": 1e5}
        parameters.attrs.update(units)
        place = np.arange(15.0).reshape(5, 3)
        f["Group/GroupPos"] = (500 * place)[some].astype("f4")
        f["Group/GroupVel"] = (10 * place + 5)[some].astype("f4")
        f["Group/GroupMass"] = (100.0 + np.arange(5))[some].astype("f4")
        f["Group/GroupLen"] = (20 + np.arange(5))[some].astype("i4")
        f["Subhalo/SubhaloMass"] = np.ones(9, "f4")

# Without units: 60 halos of 3e13 Msun/h in a box of 100 Mpc/h, in Mpc/h and Msun/h, and in kpc/h and 1e10 Msun/h.
for name, length, mass in [("mpc.hdf5", 1.0, 1.0), ("kpc.hdf5", 1e-3, 1e10)]:
    with h5py.File(FOLDER + name, "w") as f:
        f.create_group("Header").attrs["BoxSize"] = 100.0 / length
        f["Group/GroupPos"] = (np.arange(180.0).reshape(60, 3) / 2 / length).astype("f4")
        f["Group/GroupVel"] = np.full((60, 3), 200, "f4")
        f["Group/GroupMass"] = np.full(60, 3e13 / mass, "f4")
