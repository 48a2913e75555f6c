//! Tables: named columns of numbers from `.csv`, `.npz`, `.npy`, `.safetensors` and (build feature)
//! `.parquet`.

use std::fmt::Write;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A table in memory: columns of equal length, by name.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Where it came from, for error messages.
    pub path: PathBuf,
    /// Names of the columns.
    pub names: Vec<String>,
    /// The columns, `[column][row]`. Empty cells are NaN; [`Table::column`] refuses them.
    pub columns: Vec<Vec<f64>>,
    /// Arrays without a dimension in an `.npz` or `.safetensors`: single numbers, by name.
    pub scalars: Vec<(String, f64)>,
}

impl Table {
    /// Reads a table; the extension says how.
    ///
    /// An `.npz` or `.safetensors` holds one array of shape `[row]` for each column; arrays of shape
    /// `[row, k]` give columns `name0`, `name1`, …, and those of shape `[]` are scalars. An `.npy` of
    /// shape `[row, k]` gives `x0`, `x1`, ….
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        let about = file.metadata().map_err(|e| Error::io("read", path, e))?;
        if about.is_dir() {
            return Err(Error::input("is a folder; a table is needed").file(path));
        }
        if about.len() == 0 {
            return Err(Error::input("the file is empty").file(path));
        }
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase();
        let mut table = match extension.as_str() {
            "csv" => read_csv(path, file),
            "npz" => read_npz(path, file),
            "npy" => read_npy(path, file),
            "safetensors" => read_safetensors(path, &file),
            "parquet" => read_parquet(path, file),
            _ => {
                let message = "the extension must be .csv, .npz, .npy, .safetensors or .parquet";
                Err(Error::input(message).file(path))
            }
        }?;
        table.path = path.to_path_buf();
        if table.rows() == 0 {
            return Err(Error::input("the table has no rows").file(path));
        }
        for (name, column) in table.names.iter().zip(&table.columns) {
            if column.len() != table.rows() {
                let message =
                    format!("has {} rows; '{}' has {}", column.len(), table.names[0], table.rows());
                return Err(Error::input(message).file(path).field(name));
            }
        }
        Ok(table)
    }

    /// Number of rows, without the header.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    /// The single number `name`.
    pub fn scalar(&self, name: &str) -> Option<f64> {
        self.scalars.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// Position of the column `name`.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| n == name)
    }

    /// What to say of a column that is not there.
    pub(crate) fn lacks(&self) -> String {
        format!("there is no such column; the columns are {}", self.names.join(", "))
    }

    /// The column `name`; an error where it is missing or holds a NaN or an infinity.
    pub fn column(&self, name: &str) -> Result<&[f64]> {
        let error = |message: String| Error::input(message).file(&self.path).field(name);
        let index = self.find(name).ok_or_else(|| error(self.lacks()))?;
        let column = &self.columns[index];
        match column.iter().position(|v| !v.is_finite()) {
            // Row 1 is the header.
            Some(row) => {
                Err(error(format!("{} where a number is needed", column[row])).row(row as u64 + 2))
            }
            None => Ok(column),
        }
    }

    /// The text of a `.csv` file.
    pub fn csv(&self) -> String {
        let quoted = |name: &String| match name.contains([',', '"', '\n']) {
            true => format!("\"{}\"", name.replace('"', "\"\"")),
            false => name.clone(),
        };
        let mut text = self.names.iter().map(quoted).collect::<Vec<_>>().join(",");
        text.push('\n');
        for row in 0..self.rows() {
            for (index, column) in self.columns.iter().enumerate() {
                let separator = if index == 0 { "" } else { "," };
                let _ = write!(text, "{separator}{}", column[row]);
            }
            text.push('\n');
        }
        text
    }

    /// Writes a `.csv` table whole.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        super::write_atomic(path, self.csv().as_bytes())
    }
}

fn read_csv(path: &Path, file: File) -> Result<Table> {
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(BufReader::new(file));
    let bad = |e: csv::Error| {
        let row = e.position().map(|p| p.record() + 1);
        let error = Error::input(format!("is not valid CSV: {e}")).file(path);
        match row {
            Some(row) => error.row(row),
            None => error,
        }
    };
    let names: Vec<String> = reader.headers().map_err(bad)?.iter().map(String::from).collect();
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(Error::input(format!("column {} has no name", index + 1))
                .file(path)
                .row(1));
        }
        if names[..index].contains(name) {
            return Err(Error::input("the column occurs twice").file(path).field(name).row(1));
        }
    }
    if names.iter().all(|name| name.parse::<f64>().is_ok()) {
        return Err(Error::input("the first row must name the columns").file(path).row(1));
    }
    let mut columns = vec![Vec::new(); names.len()];
    for (row, record) in reader.records().enumerate() {
        for (index, cell) in record.map_err(bad)?.iter().enumerate() {
            let value = if cell.is_empty() { Ok(f64::NAN) } else { cell.parse() };
            columns[index].push(value.map_err(|_| {
                Error::input(format!("'{cell}' is not a number"))
                    .file(path)
                    .field(&names[index])
                    .row(row as u64 + 2)
            })?);
        }
    }
    Ok(Table { names, columns, ..Table::default() })
}

fn push_array<R: std::io::Read>(
    table: &mut Table,
    path: &Path,
    name: &str,
    array: npyz::NpyFile<R>,
) -> Result<()> {
    let bad = |message: String| Error::input(message).file(path).field(name);
    let shape: Vec<usize> = array.shape().iter().map(|&n| n as usize).collect();
    let fortran = array.order() == npyz::Order::Fortran;
    let values = numbers(array).map_err(bad)?;
    table.push(name, &shape, fortran, values).map_err(bad)
}

impl Table {
    /// Adds the columns of an array.
    fn push(
        &mut self,
        name: &str,
        shape: &[usize],
        fortran: bool,
        values: Vec<f64>,
    ) -> Result<(), String> {
        match *shape {
            [] => self.scalars.push((name.to_string(), values[0])),
            [_] => {
                self.names.push(name.to_string());
                self.columns.push(values);
            }
            [rows, width] => {
                for k in 0..width {
                    self.names.push(format!("{name}{k}"));
                    let at = |row| if fortran { k * rows + row } else { row * width + k };
                    self.columns.push((0..rows).map(|row| values[at(row)]).collect());
                }
            }
            _ => return Err(format!("has shape {shape:?}; [rows] or [rows, columns] is needed")),
        }
        Ok(())
    }
}

/// The elements of an array of any numeric type, as f64, in file order.
pub(crate) fn numbers<R: std::io::Read>(array: npyz::NpyFile<R>) -> Result<Vec<f64>, String> {
    use npyz::{DType, TypeChar};
    let DType::Plain(kind) = array.dtype() else {
        return Err("is a structured array; plain numbers are needed".into());
    };
    fn read<T: npyz::Deserialize, R: std::io::Read>(
        array: npyz::NpyFile<R>,
        cast: impl Fn(T) -> f64,
    ) -> Result<Vec<f64>, String> {
        let values = array
            .into_vec::<T>()
            .map_err(|e| format!("cannot be read ({e}); is the file truncated?"))?;
        Ok(values.into_iter().map(cast).collect())
    }
    match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 8) => read::<f64, R>(array, |v| v),
        (TypeChar::Float, 4) => read::<f32, R>(array, f64::from),
        (TypeChar::Int, 8) => read::<i64, R>(array, |v| v as f64),
        (TypeChar::Int, 4) => read::<i32, R>(array, f64::from),
        (TypeChar::Int, 2) => read::<i16, R>(array, f64::from),
        (TypeChar::Int, 1) => read::<i8, R>(array, f64::from),
        (TypeChar::Uint, 8) => read::<u64, R>(array, |v| v as f64),
        (TypeChar::Uint, 4) => read::<u32, R>(array, f64::from),
        (TypeChar::Uint, 2) => read::<u16, R>(array, f64::from),
        (TypeChar::Uint, 1) => read::<u8, R>(array, f64::from),
        (TypeChar::Bool, _) => read::<bool, R>(array, |v| f64::from(u8::from(v))),
        _ => Err(format!("has type {}; numbers are needed", array.dtype().descr())),
    }
}

/// The arrays of an archive are the columns, in its order.
fn read_npz(path: &Path, file: File) -> Result<Table> {
    let bad =
        |e: std::io::Error| Error::input(format!("is not a complete .npz file ({e})")).file(path);
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| bad(e.into()))?;
    let mut table = Table::default();
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|e| bad(e.into()))?;
        let name = npyz::npz::array_name_from_file_name(entry.name()).map(String::from);
        let Some(name) = name else { continue };
        push_array(&mut table, path, &name, npyz::NpyFile::new(entry).map_err(bad)?)?;
    }
    Ok(table)
}

fn read_safetensors(path: &Path, file: &File) -> Result<Table> {
    use safetensors::Dtype;
    // SAFETY: a program that truncates the file while it is mapped is outside what can be defended.
    let map = unsafe { memmap2::Mmap::map(file) }.map_err(|e| Error::io("map", path, e))?;
    let tensors = safetensors::SafeTensors::deserialize(&map).map_err(|e| {
        Error::input(format!("is not a complete .safetensors file ({e})")).file(path)
    })?;
    let mut table = Table::default();
    let mut tensors: Vec<_> = tensors.iter().collect();
    // The library lists them in any order: here it is the file's.
    tensors.sort_by_key(|(_, tensor)| tensor.data().as_ptr());
    for (name, tensor) in tensors {
        fn read<const N: usize>(bytes: &[u8], cast: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            bytes.as_chunks().0.iter().map(|b| cast(*b)).collect()
        }
        let bytes = tensor.data();
        let values = match tensor.dtype() {
            Dtype::F64 => read(bytes, f64::from_le_bytes),
            Dtype::F32 => read(bytes, |b| f32::from_le_bytes(b).into()),
            Dtype::I64 => read(bytes, |b| i64::from_le_bytes(b) as f64),
            Dtype::I32 => read(bytes, |b| i32::from_le_bytes(b).into()),
            Dtype::U64 => read(bytes, |b| u64::from_le_bytes(b) as f64),
            Dtype::U32 => read(bytes, |b| u32::from_le_bytes(b).into()),
            other => {
                let message = format!("has type {other:?}; floats or integers are needed");
                return Err(Error::input(message).file(path).field(name));
            }
        };
        let pushed = table.push(name, tensor.shape(), false, values);
        pushed.map_err(|message| Error::input(message).file(path).field(name))?;
    }
    Ok(table)
}

fn read_npy(path: &Path, file: File) -> Result<Table> {
    let array = npyz::NpyFile::new(BufReader::new(file))
        .map_err(|e| Error::input(format!("is not a complete .npy file ({e})")).file(path))?;
    let mut table = Table::default();
    push_array(&mut table, path, "x", array)?;
    Ok(table)
}

#[cfg(not(feature = "parquet"))]
fn read_parquet(path: &Path, _file: File) -> Result<Table> {
    Err(Error::input("this build cannot read Parquet: build with --features parquet").file(path))
}

/// The reader panics on some damaged files: the file is at fault then, and a user gets an error.
#[cfg(feature = "parquet")]
fn read_parquet(path: &Path, file: File) -> Result<Table> {
    crate::panics::contained(|| parquet_rows(path, file))
        .unwrap_or_else(|| Err(Error::input("is a damaged Parquet file").file(path)))
}

#[cfg(feature = "parquet")]
fn parquet_rows(path: &Path, file: File) -> Result<Table> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    let bad = |e: parquet::errors::ParquetError| {
        Error::input(format!("is not a complete Parquet file ({e})")).file(path)
    };
    let reader = SerializedFileReader::new(file).map_err(bad)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let names: Vec<String> = schema.columns().iter().map(|c| c.name().to_string()).collect();
    let mut columns = vec![Vec::new(); names.len()];
    for (row, record) in reader.get_row_iter(None).map_err(bad)?.enumerate() {
        for (index, (name, field)) in record.map_err(bad)?.get_column_iter().enumerate() {
            columns[index].push(match *field {
                Field::Null => f64::NAN,
                Field::Bool(v) => f64::from(u8::from(v)),
                Field::Byte(v) => f64::from(v),
                Field::Short(v) => f64::from(v),
                Field::Int(v) => f64::from(v),
                Field::Long(v) => v as f64,
                Field::UByte(v) => f64::from(v),
                Field::UShort(v) => f64::from(v),
                Field::UInt(v) => f64::from(v),
                Field::ULong(v) => v as f64,
                Field::Float(v) => f64::from(v),
                Field::Double(v) => v,
                _ => {
                    let message = format!("'{field}' is not a number");
                    return Err(Error::input(message).file(path).field(name).row(row as u64 + 2));
                }
            });
        }
    }
    Ok(Table { names, columns, ..Table::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(text: &str) -> Result<Table> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        Table::read(&path)
    }

    #[test]
    fn csv_errors_name_field_and_row() {
        let table = csv("a,b\n1,2\n3,4e-1\n").unwrap();
        assert_eq!(table.column("b").unwrap(), &[2.0, 0.4]);
        assert!(table.column("c").unwrap_err().to_string().contains("a, b"));
        let error = csv("a,b\n1,2\n3,x\n").unwrap_err();
        assert_eq!((error.field.as_deref(), error.row), (Some("b"), Some(3)));
        let error = csv("a,b\n1,2\nNaN,3\n").unwrap().column("a").map(<[f64]>::len).unwrap_err();
        assert_eq!((error.field.as_deref(), error.row), (Some("a"), Some(3)));
        assert!(csv("a,b\n").unwrap_err().to_string().contains("no rows"));
        assert!(csv("").unwrap_err().to_string().contains("empty"));
        assert_eq!(csv("a,b\n1\n").unwrap_err().row, Some(2));
        assert!(csv("a,a\n1,2\n").unwrap_err().to_string().contains("twice"));
        assert!(csv("1,2\n3,4\n").unwrap_err().to_string().contains("name"));
    }
}
