//! The kind of a file, by its first bytes or else by its extension.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, also compressed by gzip.
    Text,
    /// Arrays in a zip archive.
    Npz,
    /// One array.
    Npy,
    /// Arrays in a `.safetensors` file.
    Safetensors,
    /// Arrays in an HDF5 file.
    Hdf5,
    /// Parquet.
    Parquet,
    /// A kind that is recognised but not supported: what it is and what to do.
    Other(&'static str),
    /// Binary data of unknown kind.
    Binary,
}

/// The error message for [`Kind::Binary`].
pub(super) const BINARY: &str = "is a binary file of unknown kind; a table is needed, as text (.csv, \
                                 .tsv, .txt, .dat, .gz) or as .npz, .npy, .h5, .safetensors or .parquet";

/// How HDF5 files begin.
const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";

/// Kinds that are recognised but not supported, by their first bytes.
const OTHERS: [(&[u8], &str); 17] = [
    (
        b"\xd0\xcf\x11\xe0",
        "is an old Excel workbook (.xls): save the sheet as CSV and give that file",
    ),
    (b"BZh", "is compressed with bzip2: unpack it (bunzip2), or compress it with gzip"),
    (b"\xfd7zXZ", "is compressed with xz: unpack it (unxz), or compress it with gzip"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: unpack it (unzstd), or compress it with gzip"),
    (b"7z\xbc\xaf", "is a 7-Zip archive: unpack it and give the table inside"),
    (
        b"SIMPLE  =",
        "is a FITS file: save its table as CSV, as in Table.read(file).write('t.csv') with astropy",
    ),
    (b"CDF\x01", "is a NetCDF file: save its variables as CSV or .npz, for example with xarray"),
    (b"CDF\x02", "is a NetCDF file: save its variables as CSV or .npz, for example with xarray"),
    (
        b"MATLAB",
        "is a MATLAB file: save its arrays with writetable, or with scipy.io.loadmat and np.savez",
    ),
    (b"ARROW1", "is an Arrow (Feather) file: save the table as Parquet or CSV"),
    (b"ORC", "is an ORC file: save the table as Parquet or CSV"),
    (b"\x80\x02", "is a Python pickle: save the table with to_csv or np.savez"),
    (b"\x80\x03", "is a Python pickle: save the table with to_csv or np.savez"),
    (b"\x80\x04", "is a Python pickle: save the table with to_csv or np.savez"),
    (b"\x80\x05", "is a Python pickle: save the table with to_csv or np.savez"),
    (b"SQLite format 3", "is an SQLite database: export the table as CSV"),
    (b"%PDF", "is a PDF document: a table is needed, such as a CSV file"),
];

const EXCEL: &str = "is an Excel workbook: save the sheet as CSV and give that file";
const OPEN_DOCUMENT: &str =
    "is an OpenDocument spreadsheet: save the sheet as CSV and give that file";
const ARCHIVE: &str = "is a zip archive without NumPy arrays: unpack it and give the table inside";
const JSON: &str =
    "is JSON: save it as CSV, as in pandas.read_json(file).to_csv('t.csv', index=False)";
const HTML: &str = "is a web page (HTML or XML), not a table: save the table itself as CSV";
const DCD: &str = "is a DCD trajectory: save its positions [frame, body, dim] as .npz, for example with MDAnalysis";

/// True for bytes that do not occur in text: control characters except white space, 0x1a and escape.
fn is_control(byte: u8) -> bool {
    byte < b' ' && !matches!(byte, b'\t'..=b'\r' | 0x1a | 0x1b)
}

impl Kind {
    /// Determines the kind of a file.
    ///
    /// # Errors
    /// A file that cannot be opened, a folder, an empty file.
    pub fn of(path: &Path) -> Result<Kind> {
        let io = |e| Error::io("read", path, e);
        let mut file = File::open(path).map_err(io)?;
        let about = file.metadata().map_err(io)?;
        if about.is_dir() {
            return Err(Error::input("is a folder; a table is needed").file(path));
        }
        if about.len() == 0 {
            return Err(Error::input("the file is empty").file(path));
        }
        let mut head = Vec::new();
        Read::by_ref(&mut file).take(4096).read_to_end(&mut head).map_err(io)?;
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase();
        if let Some(kind) = Kind::of_bytes(&head, about.len()) {
            return Ok(match kind {
                Kind::Npz => archive(&file, extension == "npz"),
                kind => kind,
            });
        }
        Ok(match extension.as_str() {
            "npz" => Kind::Npz,
            "npy" => Kind::Npy,
            "safetensors" => Kind::Safetensors,
            "parquet" => Kind::Parquet,
            "json" => Kind::Other(JSON),
            _ if head.iter().any(|&byte| is_control(byte))
                && !head.starts_with(b"\xff\xfe")
                && !head.starts_with(b"\xfe\xff") =>
            {
                Kind::Binary
            }
            _ => Kind::Text,
        })
    }

    /// The error message for unpacked bytes that are not text.
    pub(super) fn inside(bytes: &[u8]) -> Option<&'static str> {
        let packed = "is compressed with gzip and does not hold text: unpack it first";
        match Kind::of_bytes(&bytes[..bytes.len().min(4096)], bytes.len() as u64) {
            Some(Kind::Other(what)) => Some(what),
            Some(_) => Some(packed),
            None => None,
        }
    }

    /// The kind of a file of `len` bytes by its first bytes, if they tell.
    fn of_bytes(head: &[u8], len: u64) -> Option<Kind> {
        let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
        let begins = |with: &str| {
            text.len() >= with.len() && text[..with.len()].eq_ignore_ascii_case(with.as_bytes())
        };
        if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Some(Kind::Other(what));
        }
        let length = head.get(..8).map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes")));
        match head {
            _ if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") => {
                Some(Kind::Npz)
            }
            _ if head.starts_with(b"\x1f\x8b") => Some(Kind::Text),
            _ if head.starts_with(b"\x93NUMPY") => Some(Kind::Npy),
            // A user block may precede the signature.
            _ if [0, 512, 1024, 2048]
                .iter()
                .any(|&at| head[at.min(head.len())..].starts_with(HDF5)) =>
            {
                Some(Kind::Hdf5)
            }
            _ if head.starts_with(b"PAR1") => Some(Kind::Parquet),
            _ if head.get(4..8) == Some(b"CORD") => Some(Kind::Other(DCD)),
            _ if head.get(8) == Some(&b'{') && length.is_some_and(|n| n <= len) => {
                Some(Kind::Safetensors)
            }
            _ if begins("<!doctype") || begins("<html") || begins("<?xml") => {
                Some(Kind::Other(HTML))
            }
            _ if begins("{") || begins("[{") || begins("[[") => Some(Kind::Other(JSON)),
            _ => None,
        }
    }
}

/// The kind of a zip archive; a damaged one counts as an `.npz` if it has that extension.
fn archive(file: &File, named: bool) -> Kind {
    let Ok(archive) = zip::ZipArchive::new(file) else {
        return if named { Kind::Npz } else { Kind::Other(ARCHIVE) };
    };
    let has = |test: &dyn Fn(&str) -> bool| archive.file_names().any(test);
    match () {
        () if named || has(&|name| name.ends_with(".npy")) => Kind::Npz,
        () if has(&|name| name.starts_with("xl/")) => Kind::Other(EXCEL),
        () if has(&|name| name == "content.xml") => Kind::Other(OPEN_DOCUMENT),
        () => Kind::Other(ARCHIVE),
    }
}
