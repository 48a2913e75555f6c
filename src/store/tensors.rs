//! Data sets, graphs, models and messages: one `.safetensors` file each, memory-mapped.
//!
//! The metadata has one entry, `lawsmith`: a JSON object with `kind` (dataset, graph, model,
//! messages), `version` and every parameter that made the file.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapMut};
pub use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

/// Version of the `lawsmith` entry. Files with another version are refused.
pub const VERSION: u64 = 1;

/// The tensors begin at a multiple of this many bytes, so that elements can be cast in place.
const ALIGN: usize = 64;

/// A tensor file, mapped for reading.
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    data: usize,
    metadata: Metadata,
    entry: Value,
}

impl TensorFile {
    /// Maps `path` and checks that it is a complete file of `kind`.
    pub fn open(path: &Path, kind: &str) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        let length = file.metadata().map_err(|e| Error::io("read", path, e))?;
        if length.is_dir() {
            return Err(Error::input("is a folder, not a file").file(path));
        }
        if length.len() == 0 {
            return Err(Error::input("the file is empty").file(path));
        }
        // SAFETY: lawsmith renames files into place and never changes one that exists; there is no
        // defence against another program that truncates the file while it is mapped.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io("map", path, e))?;
        let (header, metadata) = safetensors::SafeTensors::read_metadata(&map).map_err(|e| {
            Error::input(format!("is not a complete safetensors file ({e}); it may be truncated"))
                .file(path)
        })?;
        let entry = metadata.metadata().as_ref().and_then(|m| m.get("lawsmith"));
        let entry: Value =
            entry.and_then(|text| serde_json::from_str(text).ok()).ok_or_else(|| {
                Error::input(
                    "has no 'lawsmith' entry in its metadata: it was not written by lawsmith",
                )
                .file(path)
            })?;
        let found = entry["kind"].as_str().unwrap_or("unknown");
        if found != kind {
            return Err(
                Error::input(format!("is a {found} file; a {kind} file is needed")).file(path)
            );
        }
        if entry["version"] != VERSION {
            return Err(Error::input(format!(
                "has version {}; this program reads version {VERSION}",
                entry["version"]
            ))
            .file(path));
        }
        Ok(TensorFile { path: path.to_path_buf(), map, data: header + 8, metadata, entry })
    }

    /// The kind of a tensor file; `None` if it is not a lawsmith tensor file.
    pub fn kind_of(path: &Path) -> Option<String> {
        let map = File::open(path).ok().and_then(|file| {
            // SAFETY: as in `open`.
            unsafe { Mmap::map(&file) }.ok()
        })?;
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&map).ok()?;
        let entry: Value =
            serde_json::from_str(metadata.metadata().as_ref()?.get("lawsmith")?).ok()?;
        Some(entry["kind"].as_str()?.to_string())
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The `lawsmith` entry as a typed struct.
    pub fn entry<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.entry.clone()).map_err(|e| {
            Error::input(format!("has metadata that cannot be read: {e}"))
                .file(&self.path)
                .field("lawsmith")
        })
    }

    /// True if there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// The elements of tensor `name`, not copied, and its shape.
    pub fn tensor<T: bytemuck::AnyBitPattern>(
        &self,
        name: &str,
        dtype: Dtype,
    ) -> Result<(&[T], &[usize])> {
        let error = |message: String| Error::input(message).file(&self.path).field(name);
        let info = self.metadata.info(name).ok_or_else(|| error("the tensor is missing".into()))?;
        if info.dtype != dtype {
            return Err(error(format!("has type {:?}; {dtype:?} is needed", info.dtype)));
        }
        let bytes = &self.map[self.data + info.data_offsets.0..self.data + info.data_offsets.1];
        let values = bytemuck::try_cast_slice(bytes).map_err(|_| {
            error("is not aligned in the file: write the file again with lawsmith".into())
        })?;
        Ok((values, &info.shape))
    }

    /// An f32 tensor of exactly this shape.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<&[f32]> {
        let (values, found) = self.tensor::<f32>(name, Dtype::F32)?;
        if found != shape {
            return Err(Error::input(format!("has shape {found:?}; {shape:?} is needed"))
                .file(&self.path)
                .field(name));
        }
        Ok(values)
    }
}

/// A tensor of a file to be written.
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// An f32 tensor.
    pub fn f32(name: &str, shape: &[usize]) -> Self {
        TensorSpec { name: name.to_string(), dtype: Dtype::F32, shape: shape.to_vec() }
    }

    /// A u32 tensor.
    pub fn u32(name: &str, shape: &[usize]) -> Self {
        TensorSpec { name: name.to_string(), dtype: Dtype::U32, shape: shape.to_vec() }
    }

    /// A u64 tensor.
    pub fn u64(name: &str, shape: &[usize]) -> Self {
        TensorSpec { name: name.to_string(), dtype: Dtype::U64, shape: shape.to_vec() }
    }

    /// An f64 tensor.
    pub fn f64(name: &str, shape: &[usize]) -> Self {
        TensorSpec { name: name.to_string(), dtype: Dtype::F64, shape: shape.to_vec() }
    }
}

/// A tensor file being written through a memory map. It appears under its name when
/// [`TensorWriter::finish`] is called, and never if it is dropped before.
pub struct TensorWriter {
    path: PathBuf,
    temporary: PathBuf,
    map: MmapMut,
    /// Open, and therefore locked, until the file has its name.
    _file: File,
    ranges: HashMap<String, Range<usize>>,
    finished: bool,
}

impl TensorWriter {
    /// Reserves the space on disk (a full disk is an error here, not a crash later) and writes the
    /// header. `entry` is the metadata object; `kind` and `version` are added to it.
    pub fn create(path: &Path, kind: &str, mut entry: Value, specs: &[TensorSpec]) -> Result<Self> {
        if path.is_dir() {
            return Err(Error::usage("is a folder; a file name is needed").file(path));
        }
        entry["kind"] = kind.into();
        entry["version"] = VERSION.into();
        let mut infos = Vec::new();
        let mut offset = 0;
        // The format allows no gaps: with wide elements first, every element is aligned.
        let mut specs: Vec<&TensorSpec> = specs.iter().collect();
        specs.sort_by_key(|spec| std::cmp::Reverse(spec.dtype.bitsize()));
        for spec in specs {
            let bytes = spec.shape.iter().product::<usize>() * spec.dtype.bitsize() / 8;
            let info = TensorInfo {
                dtype: spec.dtype,
                shape: spec.shape.clone(),
                data_offsets: (offset, offset + bytes),
            };
            infos.push((spec.name.clone(), info));
            offset += bytes;
        }
        let ranges: HashMap<_, _> =
            infos.iter().map(|(n, i)| (n.clone(), i.data_offsets.0..i.data_offsets.1)).collect();
        let entries = HashMap::from([("lawsmith".to_string(), entry.to_string())]);
        let metadata = Metadata::new(Some(entries), infos)
            .map_err(|e| Error::input(format!("cannot describe the tensors: {e}")).file(path))?;
        let mut header = serde_json::to_vec(&metadata)
            .map_err(|e| Error::input(format!("cannot write the header: {e}")).file(path))?;
        header.resize((header.len() + 8).next_multiple_of(ALIGN) - 8, b' ');
        let data = header.len() + 8;

        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        }
        let temporary = super::temporary(path);
        let (file, map) = reserve(&temporary, data + offset).map_err(|e| {
            let _ = std::fs::remove_file(&temporary);
            Error::io("write", path, e)
        })?;
        let ranges = ranges.into_iter().map(|(n, r)| (n, r.start + data..r.end + data)).collect();
        let mut writer = TensorWriter {
            path: path.to_path_buf(),
            temporary,
            map,
            _file: file,
            ranges,
            finished: false,
        };
        writer.map[..8].copy_from_slice(&(header.len() as u64).to_le_bytes());
        writer.map[8..data].copy_from_slice(&header);
        Ok(writer)
    }

    /// The elements of tensor `name`, to be filled.
    ///
    /// # Panics
    /// If the file was created without this tensor: a programming error.
    pub fn slice<T: bytemuck::Pod>(&mut self, name: &str) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.map[self.ranges[name].clone()])
    }

    /// The elements of several tensors of one type at once, to be filled in parallel.
    ///
    /// # Panics
    /// As [`TensorWriter::slice`].
    pub fn slices<T: bytemuck::Pod, const N: usize>(&mut self, names: [&str; N]) -> [&mut [T]; N] {
        let ranges = names.map(|name| self.ranges[name].clone());
        self.map
            .get_disjoint_mut(ranges)
            .expect("tensors do not overlap")
            .map(bytemuck::cast_slice_mut)
    }

    /// Flushes to disk and gives the file its name.
    pub fn finish(mut self) -> Result<()> {
        let done = self.map.flush().and_then(|()| std::fs::rename(&self.temporary, &self.path));
        done.map_err(|e| Error::io("write", &self.path, e))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for TensorWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn reserve(path: &Path, bytes: usize) -> std::io::Result<(File, MmapMut)> {
    use std::os::fd::AsRawFd;
    let file = super::create(path)?;
    // SAFETY: the descriptor is open for the duration of the call.
    let code = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) };
    if code != 0 {
        return Err(std::io::Error::from_raw_os_error(code));
    }
    // SAFETY: the name of the file belongs to this process until it is renamed.
    let map = unsafe { MmapMut::map_mut(&file) }?;
    Ok((file, map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let specs = [TensorSpec::f32("x", &[3, 5]), TensorSpec::f64("t", &[3])];
        let mut writer =
            TensorWriter::create(&path, "dataset", serde_json::json!({"seed": 7}), &specs).unwrap();
        writer.slice::<f32>("x").copy_from_slice(&[1.5; 15]);
        writer.slice::<f64>("t").copy_from_slice(&[0.0, 0.1, 0.2]);
        assert!(!path.exists(), "an incomplete file must not have the name");
        writer.finish().unwrap();
        let file = TensorFile::open(&path, "dataset").unwrap();
        assert_eq!(file.f32("x", &[3, 5]).unwrap(), &[1.5; 15]);
        assert_eq!(file.tensor::<f64>("t", Dtype::F64).unwrap().0, &[0.0, 0.1, 0.2]);
        assert_eq!(file.entry::<Value>().unwrap()["seed"], 7);
        assert_eq!(TensorFile::kind_of(&path).as_deref(), Some("dataset"));
        assert!(TensorFile::open(&path, "model").err().unwrap().to_string().contains("dataset"));
    }

    #[test]
    fn truncated_and_dropped_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let specs = [TensorSpec::f32("x", &[100])];
        drop(TensorWriter::create(&path, "dataset", serde_json::json!({}), &specs).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
        TensorWriter::create(&path, "dataset", serde_json::json!({}), &specs)
            .unwrap()
            .finish()
            .unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 4, 20, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(TensorFile::open(&path, "dataset").is_err(), "{length} bytes");
        }
    }
}
