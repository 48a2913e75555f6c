//! Arrays in HDF5 files (build feature `hdf5`), as h5py, pandas and simulations write them.
//!
//! An array is named by the last part of its path if no other array shares it (`GroupPos` for `Group/GroupPos`). The
//! fields of a compound array (a structured array of NumPy, a table of PyTables) are arrays of their own.

use std::path::Path;

use super::Array;
use crate::error::{Error, Result};

#[cfg(not(feature = "hdf5"))]
const MISSING: &str = "this build cannot read HDF5: build with --features hdf5";

/// The arrays of a file, group by group; only those of the group `within` unless it is empty, and none if there is no
/// such group.
#[cfg(not(feature = "hdf5"))]
pub(super) fn read(path: &Path, _within: &str) -> Result<Vec<Array>> {
    Err(Error::input(MISSING).file(path))
}

/// The attributes of a file that are single numbers, each with its path.
#[cfg(not(feature = "hdf5"))]
pub(super) fn attributes(path: &Path) -> Result<Vec<(String, f64)>> {
    Err(Error::input(MISSING).file(path))
}

#[cfg(feature = "hdf5")]
pub(super) use enabled::{attributes, read};

#[cfg(feature = "hdf5")]
mod enabled {
    use hdf5_pure::{Dataset, Datatype, DatatypeByteOrder, File, Group};

    use super::*;
    use crate::store::table::Words;
    use crate::store::table::arrays::{Found, whole};

    /// Groups nested deeper than this are taken for a cyclic link.
    const DEEPEST: usize = 16;

    /// The arrays of a file, group by group; only those of the group `within` unless it is empty, and none if there is
    /// no such group.
    pub fn read(path: &Path, within: &str) -> Result<Vec<Array>> {
        let mut arrays = open(path, |file| {
            let mut arrays = Vec::new();
            let group = match within {
                "" => Some(file.root()),
                _ => file.root().iter_groups()?.find(|(name, _)| name == within).map(|(_, g)| g),
            };
            let mut each = |object: Object| {
                if let Object::Array(name, dataset) = object {
                    add(name, &dataset, &mut arrays);
                }
                Ok(())
            };
            group.map_or(Ok(()), |group| visit(&group, "", 0, &mut each))?;
            Ok(arrays)
        })?;
        if arrays.is_empty() && within.is_empty() {
            return Err(Error::input("holds no arrays").file(path));
        }
        let pandas = |array: &&Array| {
            ["/block0_values", "/table/values_block_0"].iter().any(|end| array.name.ends_with(end))
        };
        if let Some(array) = arrays.iter().find(pandas) {
            let message = "holds columns without names: write the frame with df.to_hdf(file, key='df', \
                           format='table', data_columns=True)";
            return Err(Error::input(message).file(path).field(&array.name));
        }
        shorten(&mut arrays);
        Ok(arrays)
    }

    /// The attributes of a file that are single numbers, each with its path: `Header/BoxSize`.
    pub fn attributes(path: &Path) -> Result<Vec<(String, f64)>> {
        open(path, |file| {
            let mut found = Vec::new();
            visit(&file.root(), "", 0, &mut |object| {
                let (of, attributes) = match object {
                    Object::Group(name, group) => (name, group.attrs()?),
                    Object::Array(name, dataset) => (format!("{name}/"), dataset.attrs()?),
                };
                let named = |(name, value): (String, hdf5_pure::AttrValue)| {
                    let number = value.as_f64().or(value.as_i64().map(|n| n as f64))?;
                    Some((format!("{of}{name}"), number))
                };
                found.extend(attributes.into_iter().filter_map(named));
                Ok(())
            })?;
            // The library lists the attributes of an object in arbitrary order.
            found.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(found)
        })
    }

    /// Opens a file for `work`. The library may panic on a damaged file, which becomes an error.
    fn open<T>(
        path: &Path,
        work: impl FnOnce(&File) -> Result<T, hdf5_pure::Error> + std::panic::UnwindSafe,
    ) -> Result<T> {
        let done = crate::panics::contained(|| work(&File::open_streaming(path)?));
        match done {
            Some(Ok(done)) => Ok(done),
            Some(Err(e)) => {
                Err(Error::input(format!("is not a complete HDF5 file ({e})")).file(path))
            }
            None => Err(Error::input("is a damaged HDF5 file").file(path)),
        }
    }

    /// An object in a file, with its path, which ends with `/` for a group and is empty for the root.
    enum Object<'a> {
        Group(String, &'a Group),
        Array(String, Dataset),
    }

    /// Calls `each` with a group, its arrays and, recursively, its subgroups.
    fn visit(
        group: &Group,
        path: &str,
        depth: usize,
        each: &mut dyn FnMut(Object) -> Result<(), hdf5_pure::Error>,
    ) -> Result<(), hdf5_pure::Error> {
        each(Object::Group(path.to_string(), group))?;
        for (name, dataset) in group.iter_datasets()? {
            each(Object::Array(format!("{path}{name}"), dataset))?;
        }
        for (name, inner) in group.iter_groups()? {
            // PyTables keeps the indices of a table in a group with such a name.
            if depth < DEEPEST && !name.starts_with("_i_") {
                visit(&inner, &format!("{path}{name}/"), depth + 1, each)?;
            }
        }
        Ok(())
    }

    /// Adds a dataset; if it is compound, its fields.
    fn add(name: String, dataset: &Dataset, arrays: &mut Vec<Array>) {
        let nothing = |why: String| Found::Nothing(why);
        let (shape, kind) = match dataset.shape().and_then(|s| Ok((s, dataset.datatype()?))) {
            Ok((shape, kind)) => (shape.iter().map(|&n| n as usize).collect::<Vec<_>>(), kind),
            Err(e) => {
                return arrays.push(Array::new(&name, Vec::new(), false, nothing(unread(&e))));
            }
        };
        if let Datatype::VariableLength { is_string: true, .. } = kind {
            let words = |words: Vec<String>| Found::Words(words.into_iter().collect());
            let found = match shape.len() {
                1 => dataset.read_string().map_or_else(|e| nothing(unread(&e)), words),
                _ => nothing("holds text; numbers are needed".into()),
            };
            return arrays.push(Array::new(&name, shape, false, found));
        }
        let bytes = match dataset.read_raw() {
            Ok(bytes) => bytes,
            Err(e) => return arrays.push(Array::new(&name, shape, false, nothing(unread(&e)))),
        };
        let Datatype::Compound { size, members } = kind else {
            let field = FieldView { bytes: &bytes, size: kind.type_size() as usize, offset: 0 };
            return arrays.push(field.array(&name, shape, &kind));
        };
        // pandas keeps the index of a frame in a field of its table.
        let index = |field: &str| field == "index" && name.ends_with("/table");
        for member in members.iter().filter(|member| !index(&member.name)) {
            let field = FieldView {
                bytes: &bytes,
                size: size as usize,
                offset: member.byte_offset as usize,
            };
            let name = format!("{name}/{}", member.name);
            arrays.push(field.array(&name, shape.clone(), &member.datatype));
        }
    }

    fn unread(e: &hdf5_pure::Error) -> String {
        format!(
            "cannot be read ({e}); with h5py, write it with compression='gzip' and the default libver"
        )
    }

    /// The elements of one field in the bytes of a dataset.
    struct FieldView<'a> {
        bytes: &'a [u8],
        /// Bytes from one element to the next.
        size: usize,
        /// Offset of the field in each element.
        offset: usize,
    }

    impl FieldView<'_> {
        fn array(&self, name: &str, mut shape: Vec<usize>, kind: &Datatype) -> Array {
            let (kind, each) = match kind {
                Datatype::Array { base_type, dimensions } => {
                    shape.extend(dimensions.iter().map(|&n| n as usize));
                    (&**base_type, dimensions.iter().map(|&n| n as usize).product())
                }
                kind => (kind, 1),
            };
            let found = match self.bytes.len() / self.size.max(1) * each
                == shape.iter().product::<usize>()
            {
                true => self.found(kind, each, shape.len()),
                // An array without shape and value: h5py.Empty.
                false => Found::Nothing("is empty".into()),
            };
            Array::new(name, shape, false, found)
        }

        /// The elements; each record of the dataset has `each` of them.
        fn found(&self, kind: &Datatype, each: usize, axes: usize) -> Found {
            let wide = kind.type_size() as usize;
            let cells = self
                .bytes
                .chunks_exact(self.size)
                .flat_map(|record| record[self.offset..][..each * wide].chunks_exact(wide));
            let bits = |big: bool| {
                move |cell: &[u8]| -> u64 {
                    let mut word = [0; 8];
                    word[..cell.len()].copy_from_slice(cell);
                    if big {
                        word[..cell.len()].reverse();
                    }
                    u64::from_le_bytes(word)
                }
            };
            let no = || Found::Nothing("has an unsupported type; plain numbers are needed".into());
            let big = |order: &DatatypeByteOrder| *order == DatatypeByteOrder::BigEndian;
            match kind {
                Datatype::Enumeration { base_type, .. } => self.found(base_type, each, axes),
                Datatype::FixedPoint { byte_order, layout, .. }
                    if usize::from(layout.bit_precision) == 8 * wide && wide <= 8 =>
                {
                    let unused = 64 - 8 * wide;
                    let values = cells.map(bits(big(byte_order)));
                    match layout.signed {
                        true => whole(
                            values.map(|v| (v << unused) as i64 >> unused).collect(),
                            i64::unsigned_abs,
                            |v| v as f64,
                        ),
                        false => whole(values.collect(), |v| v, |v| v as f64),
                    }
                }
                Datatype::FloatingPoint { byte_order, layout, .. } => {
                    let number: fn(u64) -> f64 = match (wide, layout.exponent_size) {
                        (8, 11) => f64::from_bits,
                        (4, 8) => |v| f32::from_bits(v as u32).into(),
                        (2, 5) => |v| half::f16::from_bits(v as u16).into(),
                        _ => return no(),
                    };
                    Found::Numbers(cells.map(bits(big(byte_order))).map(number).collect())
                }
                Datatype::String { .. } if axes == 1 => {
                    let word = |cell: &[u8]| {
                        let end = cell.iter().position(|&b| b == 0).unwrap_or(cell.len());
                        String::from_utf8_lossy(&cell[..end]).trim_end().to_string()
                    };
                    Found::Words(cells.map(word).collect::<Words>())
                }
                Datatype::String { .. } => Found::Nothing("holds text; numbers are needed".into()),
                Datatype::Compound { .. } => Found::Nothing(
                    "holds complex numbers or nested fields; plain numbers are needed".into(),
                ),
                _ => no(),
            }
        }
    }

    /// Shortens each name to its last part, unless another array shares that.
    fn shorten(arrays: &mut [Array]) {
        let last = |name: &str| name.rsplit('/').next().unwrap_or(name).to_string();
        let mut times = std::collections::HashMap::new();
        for array in arrays.iter() {
            *times.entry(last(&array.name)).or_insert(0) += 1;
        }
        for array in arrays {
            let last = last(&array.name);
            if times[&last] == 1 {
                array.name = last;
            }
        }
    }
}
