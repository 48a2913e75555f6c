//! Arrays in `.npz`, `.npy`, `.safetensors` and HDF5 files, and tables made from them.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::{Column, Kind, Table, Words, hdf5};
use crate::error::{Error, Result};

/// An array of numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    /// Its name; `x` in an `.npy`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The elements, the last axis fastest. Empty if they are not numbers, see [`Array::words`].
    pub values: Vec<f64>,
    /// The elements of a one-dimensional array of words, or of integers too large to be exact in f64.
    pub words: Option<Words>,
    /// What is wrong with an array that holds neither. It is an error only if the array is used.
    pub unreadable: Option<String>,
}

/// Beyond this, not every integer is exact in f64.
const EXACT: u64 = 1 << 53;

impl Array {
    /// The arrays of an `.npz`, `.npy`, `.safetensors` or HDF5 file, in the order of the file.
    ///
    /// # Errors
    /// A damaged file.
    pub fn read(path: &Path) -> Result<Vec<Array>> {
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        match Kind::of(path)? {
            Kind::Npz => read_npz(path, file),
            Kind::Npy => read_npy(path, file),
            Kind::Hdf5 => hdf5::read(path, ""),
            _ => read_safetensors(path, &file),
        }
    }

    /// The arrays of the group `within` of an HDF5 file; none if there is no such group.
    ///
    /// # Errors
    /// A damaged file.
    pub fn read_group(path: &Path, within: &str) -> Result<Vec<Array>> {
        hdf5::read(path, within)
    }

    /// The attributes of an HDF5 file that are single numbers, each with its path: `Header/BoxSize`.
    ///
    /// # Errors
    /// A damaged file.
    pub fn attributes(path: &Path) -> Result<Vec<(String, f64)>> {
        hdf5::attributes(path)
    }

    pub(super) fn new(name: &str, shape: Vec<usize>, fortran: bool, found: Found) -> Array {
        let mut array = Array { name: name.to_string(), shape, ..Array::default() };
        match found {
            Found::Numbers(values) if fortran && array.shape.len() > 1 => {
                array.values = transposed(&values, &array.shape);
            }
            Found::Numbers(values) => array.values = values,
            Found::Words(words) => array.words = Some(words),
            Found::Nothing(message) => array.unreadable = Some(message),
        }
        array
    }
}

/// What an array held.
pub(super) enum Found {
    Numbers(Vec<f64>),
    Words(Words),
    /// Neither, and why.
    Nothing(String),
}

/// Converts from Fortran order (first axis fastest) to C order (last axis fastest).
fn transposed(values: &[f64], shape: &[usize]) -> Vec<f64> {
    let mut strides = vec![1; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1];
    }
    let mut index = vec![0; shape.len()];
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        out.push(values[index.iter().zip(&strides).map(|(i, s)| i * s).sum::<usize>()]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

/// The table whose columns are `arrays`.
pub(super) fn table(path: &Path, arrays: &[Array]) -> Result<Table> {
    let mut table = Table::default();
    for array in arrays {
        let Array { name, shape, values, words, unreadable } = array;
        let bad = |message: String| Err(Error::input(message).file(path).field(name));
        if let Some(message) = unreadable {
            table.notes.push(format!("'{name}' is left out: {message}"));
            table.unreadable.push((name.clone(), message.clone()));
            continue;
        }
        match (&shape[..], words) {
            (_, Some(words)) => {
                table.names.push(name.clone());
                table.columns.push(Column::Words(words.clone()));
            }
            ([], None) => table.scalars.push((name.clone(), values[0])),
            ([_], None) => {
                table.names.push(name.clone());
                table.columns.push(values.clone().into());
            }
            (&[rows, width], None) => {
                for k in 0..width {
                    table.names.push(format!("{name}{k}"));
                    let column: Vec<f64> = (0..rows).map(|row| values[row * width + k]).collect();
                    table.columns.push(column.into());
                }
            }
            _ => return bad(format!("has shape {shape:?}; [rows] or [rows, columns] is needed")),
        }
    }
    // An array of shape [1] among longer columns is a scalar: box_size=np.array([L]).
    let rows = table.columns.iter().map(Column::len).max().unwrap_or(0);
    if rows > 1 {
        for k in (0..table.names.len())
            .rev()
            .filter(|&k| table.columns[k].len() == 1)
            .collect::<Vec<_>>()
        {
            if let (name, Column::Numbers(values)) =
                (table.names.remove(k), table.columns.remove(k))
            {
                table.scalars.push((name, values[0]));
            }
        }
    }
    if table.names.is_empty()
        && let Some(Array { name, unreadable: Some(message), .. }) = arrays.first()
    {
        return Err(Error::input(message.clone()).file(path).field(name));
    }
    Ok(table)
}

/// The elements of an array of any numeric type, as f64, in file order.
///
/// # Errors
/// Another type or a truncated file, as a sentence.
pub fn numbers<R: std::io::Read>(array: npyz::NpyFile<R>) -> Result<Vec<f64>, String> {
    match elements(array)? {
        Found::Numbers(values) => Ok(values),
        Found::Words(words) => words.parse().map_err(|_| "holds text; numbers are needed".into()),
        Found::Nothing(message) => Err(message),
    }
}

/// Integers as numbers; as text if one of them is not exact in f64.
pub(super) fn whole<T: Copy + std::fmt::Display>(
    values: Vec<T>,
    size: impl Fn(T) -> u64,
    cast: impl Fn(T) -> f64,
) -> Found {
    match values.iter().any(|&v| size(v) > EXACT) {
        true => Found::Words(values.iter().map(T::to_string).collect()),
        false => Found::Numbers(values.into_iter().map(cast).collect()),
    }
}

fn elements<R: std::io::Read>(array: npyz::NpyFile<R>) -> Result<Found, String> {
    use npyz::{DType, TypeChar};
    let DType::Plain(kind) = array.dtype() else {
        return Ok(Found::Nothing("is a structured array; plain numbers are needed".into()));
    };
    fn all<T: npyz::Deserialize, R: std::io::Read>(
        array: npyz::NpyFile<R>,
    ) -> Result<Vec<T>, String> {
        array.into_vec::<T>().map_err(|e| format!("cannot be read ({e}); is the file truncated?"))
    }
    fn read<T: npyz::Deserialize, R: std::io::Read>(
        array: npyz::NpyFile<R>,
        cast: impl Fn(T) -> f64,
    ) -> Result<Found, String> {
        Ok(Found::Numbers(all(array)?.into_iter().map(cast).collect()))
    }
    match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 8) => read::<f64, R>(array, |v| v),
        (TypeChar::Float, 4) => read::<f32, R>(array, f64::from),
        (TypeChar::Float, 2) => read::<half::f16, R>(array, f64::from),
        (TypeChar::Int, 8) => Ok(whole(all::<i64, R>(array)?, i64::unsigned_abs, |v| v as f64)),
        (TypeChar::Int, 4) => read::<i32, R>(array, f64::from),
        (TypeChar::Int, 2) => read::<i16, R>(array, f64::from),
        (TypeChar::Int, 1) => read::<i8, R>(array, f64::from),
        (TypeChar::Uint, 8) => Ok(whole(all::<u64, R>(array)?, |v| v, |v| v as f64)),
        (TypeChar::Uint, 4) => read::<u32, R>(array, f64::from),
        (TypeChar::Uint, 2) => read::<u16, R>(array, f64::from),
        (TypeChar::Uint, 1) => read::<u8, R>(array, f64::from),
        (TypeChar::Bool, _) => read::<bool, R>(array, |v| f64::from(u8::from(v))),
        (TypeChar::UnicodeStr | TypeChar::ByteStr, _) if array.shape().len() == 1 => {
            Ok(Found::Words(
                all::<String, R>(array)?.iter().map(|w| w.trim_end_matches('\0')).collect(),
            ))
        }
        (TypeChar::Object, _) => {
            Ok(Found::Nothing("holds Python objects; plain arrays of numbers are needed".into()))
        }
        _ => Ok(Found::Nothing(format!("has type {}; numbers are needed", array.dtype().descr()))),
    }
}

fn read_array<R: std::io::Read>(path: &Path, name: &str, array: npyz::NpyFile<R>) -> Result<Array> {
    let shape = array.shape().iter().map(|&n| n as usize).collect();
    let fortran = array.order() == npyz::Order::Fortran;
    let found = elements(array).map_err(|message| Error::input(message).file(path).field(name))?;
    Ok(Array::new(name, shape, fortran, found))
}

/// The arrays of an archive, in the order of the archive.
fn read_npz(path: &Path, file: File) -> Result<Vec<Array>> {
    let bad =
        |e: std::io::Error| Error::input(format!("is not a complete .npz file ({e})")).file(path);
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| bad(e.into()))?;
    let mut arrays = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|e| bad(e.into()))?;
        let name = npyz::npz::array_name_from_file_name(entry.name()).map(String::from);
        let Some(name) = name else { continue };
        arrays.push(read_array(path, &name, npyz::NpyFile::new(entry).map_err(bad)?)?);
    }
    Ok(arrays)
}

fn read_npy(path: &Path, file: File) -> Result<Vec<Array>> {
    let array = npyz::NpyFile::new(BufReader::new(file))
        .map_err(|e| Error::input(format!("is not a complete .npy file ({e})")).file(path))?;
    let npyz::DType::Record(fields) = array.dtype() else {
        return Ok(vec![read_array(path, "x", array)?]);
    };
    drop(fields);
    Err(Error::input("is a structured array; plain numbers are needed").file(path).field("x"))
}

fn read_safetensors(path: &Path, file: &File) -> Result<Vec<Array>> {
    use safetensors::Dtype;
    // SAFETY: there is no defence against a program that truncates the file while it is mapped.
    let map = unsafe { memmap2::Mmap::map(file) }.map_err(|e| Error::io("map", path, e))?;
    let tensors = safetensors::SafeTensors::deserialize(&map).map_err(|e| {
        Error::input(format!("is not a complete .safetensors file ({e})")).file(path)
    })?;
    let mut tensors: Vec<_> = tensors.iter().collect();
    // The library lists them in arbitrary order; sort by position in the file.
    tensors.sort_by_key(|(_, tensor)| tensor.data().as_ptr());
    let array = |(name, tensor): (&str, safetensors::tensor::TensorView)| {
        fn read<const N: usize, T>(bytes: &[u8], cast: impl Fn([u8; N]) -> T) -> Vec<T> {
            bytes.as_chunks().0.iter().map(|b| cast(*b)).collect()
        }
        let bytes = tensor.data();
        let found = match tensor.dtype() {
            Dtype::F64 => Found::Numbers(read(bytes, f64::from_le_bytes)),
            Dtype::F32 => Found::Numbers(read(bytes, |b| f32::from_le_bytes(b).into())),
            Dtype::I64 => whole(read(bytes, i64::from_le_bytes), i64::unsigned_abs, |v| v as f64),
            Dtype::I32 => Found::Numbers(read(bytes, |b| i32::from_le_bytes(b).into())),
            Dtype::U64 => whole(read(bytes, u64::from_le_bytes), |v| v, |v| v as f64),
            Dtype::U32 => Found::Numbers(read(bytes, |b| u32::from_le_bytes(b).into())),
            other => Found::Nothing(format!("has type {other:?}; floats or integers are needed")),
        };
        Array::new(name, tensor.shape().to_vec(), false, found)
    };
    Ok(tensors.into_iter().map(array).collect())
}
