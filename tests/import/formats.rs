//! The same table in other formats, whole and damaged.

use super::*;

/// Writes a table as an `.npz` with one array for each column.
fn npz(table: &Table, path: &Path) {
    use npyz::WriterBuilder;
    use std::io::Write;
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (index, name) in table.names.iter().enumerate() {
        let column = table.values(name).unwrap();
        let mut bytes = Vec::new();
        let array = npyz::WriteOptions::new().default_dtype().shape(&[column.len() as u64]);
        let mut array = array.writer(&mut bytes).begin_nd().unwrap();
        array.extend(column.iter().copied()).unwrap();
        array.finish().unwrap();
        // As numpy.savez and numpy.savez_compressed do.
        let methods = [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated];
        let how = zip::write::FileOptions::default().compression_method(methods[index % 2]);
        archive.start_file(format!("{name}.npy"), how).unwrap();
        archive.write_all(&bytes).unwrap();
    }
    archive.finish().unwrap();
}

/// Writes a table as compressed Parquet in two groups of rows: whole numbers for runs and bodies,
/// f64 for times, f32 for the rest, as the dataset has them.
#[cfg(feature = "parquet")]
fn parquet(table: &Table, path: &Path) {
    use parquet::basic::Compression;
    use parquet::data_type::{DoubleType, FloatType, Int32Type, Int64Type};
    use parquet::file::{properties::WriterProperties, writer::SerializedFileWriter};
    let fields = table.names.iter().map(|name| match name.as_str() {
        "run" => "REQUIRED INT64 run;".to_string(),
        "body" => "REQUIRED INT32 body;".to_string(),
        "time" => "REQUIRED DOUBLE time;".to_string(),
        name => format!("OPTIONAL FLOAT {name};"),
    });
    let schema = format!("message trajectories {{ {} }}", fields.collect::<String>());
    let schema = parquet::schema::parser::parse_message_type(&schema).unwrap();
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let file = std::fs::File::create(path).unwrap();
    let mut file = SerializedFileWriter::new(file, schema.into(), properties.into()).unwrap();
    let half = table.rows() / 2;
    for rows in [0..half, half..table.rows()] {
        let mut group = file.next_row_group().unwrap();
        for name in &table.names {
            let values = &table.values(name).unwrap()[rows.clone()];
            let mut column = group.next_column().unwrap().unwrap();
            let written = match name.as_str() {
                "run" => {
                    let values: Vec<i64> = values.iter().map(|v| *v as i64).collect();
                    column.typed::<Int64Type>().write_batch(&values, None, None)
                }
                "body" => {
                    let values: Vec<i32> = values.iter().map(|v| *v as i32).collect();
                    column.typed::<Int32Type>().write_batch(&values, None, None)
                }
                "time" => column.typed::<DoubleType>().write_batch(values, None, None),
                _ => {
                    // An optional column has a level for each cell: 1 where there is a value.
                    let levels: Vec<i16> = values.iter().map(|v| i16::from(!v.is_nan())).collect();
                    let present = values.iter().filter(|v| !v.is_nan());
                    let values: Vec<f32> = present.map(|v| *v as f32).collect();
                    column.typed::<FloatType>().write_batch(&values, Some(&levels), None)
                }
            };
            written.unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    file.close().unwrap();
}

/// Imports only the first part of a file: one sentence that names it, exit code 1, and an older
/// dataset stays.
fn refused_where_truncated(whole: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let name = whole.file_name().unwrap();
    let (part, out) = (folder.path().join(name), folder.path().join("t.safetensors"));
    let bytes = std::fs::read(whole).unwrap();
    std::fs::write(&out, "precious").unwrap();
    for length in [4, bytes.len() / 4, bytes.len() / 2, bytes.len() - 9, bytes.len() - 1] {
        std::fs::write(&part, &bytes[..length]).unwrap();
        let (part, out) = (part.to_str().unwrap(), out.to_str().unwrap());
        let output = Command::cargo_bin("lawsmith")
            .unwrap()
            .args(["import", part, "-o", out, "--overwrite"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{length} bytes: {output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{length} bytes: {text}");
        assert!(text.starts_with(&format!("error: {part}: is not a complete ")), "{text}");
        assert!(output.stdout.is_empty());
        assert_eq!(std::fs::read_to_string(out).unwrap(), "precious");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "{length} bytes");
    }
}

/// A search with a seed ends in the same formulas only where the columns come in the same order.
#[test]
fn columns_come_in_the_order_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..24).map(|k| format!("c{}", k * 7 % 24)).collect();
    let columns: Vec<Vec<f64>> = (0..24).map(|k| vec![f64::from(k); 3]).collect();
    let table = Table::new(names.clone(), columns);
    let archive = folder.path().join("t.npz");
    npz(&table, &archive);
    let tensors = folder.path().join("t.safetensors");
    let specs: Vec<TensorSpec> = names.iter().map(|name| TensorSpec::f64(name, &[3])).collect();
    let mut writer =
        TensorWriter::create(&tensors, "table", serde_json::json!({}), &specs).unwrap();
    for name in &names {
        writer.slice::<f64>(name).copy_from_slice(table.values(name).unwrap());
    }
    writer.finish().unwrap();
    for path in [archive, tensors] {
        let read = Table::read(&path).unwrap();
        assert_eq!((&read.names, &read.columns), (&table.names, &table.columns), "{path:?}");
    }
}

#[test]
fn an_npz_gives_what_the_csv_gives_and_part_of_it_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (truth, table) = full_table(folder.path());
    let path = folder.path().join("t.npz");
    npz(&table, &path);
    comes_back(&truth, &path);
    refused_where_truncated(&path);
}

#[cfg(feature = "parquet")]
#[test]
fn a_parquet_file_gives_what_the_csv_gives_and_part_of_it_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (truth, table) = full_table(folder.path());
    let path = folder.path().join("t.parquet");
    parquet(&table, &path);
    comes_back(&truth, &path);
    refused_where_truncated(&path);

    let mut columns: Vec<Vec<f64>> =
        table.names.iter().map(|name| table.values(name).unwrap().to_vec()).collect();
    columns[table.find("vy").unwrap()][250] = f64::NAN;
    parquet(&Table::new(table.names, columns), &path);
    let out = folder.path().join("t.safetensors");
    let (code, document) =
        lawsmith(&["import", path.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    let error = &document["error"];
    assert_eq!(code, Some(1), "{document}");
    assert_eq!((error["field"].as_str(), error["row"].as_u64()), (Some("vy"), Some(252)));
    assert!(!out.exists());
}

/// Whatever a byte is changed to, the table is read or refused; the reader's own panics stay inside.
#[cfg(feature = "parquet")]
#[test]
fn a_damaged_parquet_file_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    let names = ["run", "time", "x"].map(String::from).to_vec();
    let columns = vec![(0..20).map(f64::from).collect(); 3];
    parquet(&Table::new(names, columns), &path);
    let bytes = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for at in 0..bytes.len() {
        for change in [0x01, 0x10, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= change;
            std::fs::write(&path, damaged).unwrap();
            if let Err(error) = Table::read(&path) {
                assert_eq!(error.file.as_ref(), Some(&path), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > bytes.len(), "{refused} of {} changes", 4 * bytes.len());
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_build_without_parquet_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let [path, out] = ["t.parquet", "t.safetensors"].map(|name| folder.path().join(name));
    std::fs::write(&path, "PAR1").unwrap();
    let (code, document) =
        lawsmith(&["import", path.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{document}");
    let message = document["error"]["message"].as_str().unwrap();
    assert!(message.ends_with("build with --features parquet"), "{message}");
    assert!(!out.exists());
}

/// Arrays padded with NaN: bodies that a run does not have, and frames in which one of its bodies was not seen.
#[test]
fn bodies_that_are_not_numbers_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("t.npy"), folder.path().join("t.safetensors"));
    let (runs, frames, bodies) = (2, 30, 3);
    let write = |unseen: &dyn Fn(usize, usize, usize, usize) -> bool| {
        use npyz::WriterBuilder;
        let mut bytes = Vec::new();
        let shape = [runs, frames, bodies, 2].map(|n| n as u64);
        let array = npyz::WriteOptions::new().default_dtype().shape(&shape);
        let mut array = array.writer(&mut bytes).begin_nd().unwrap();
        for at in 0..runs * frames * bodies * 2 {
            let (run, frame) = (at / (2 * bodies * frames), at / (2 * bodies) % frames);
            let (body, axis) = (at / 2 % bodies, at % 2);
            let angle = 0.1 * frame as f64 + 2.0 * (body + run) as f64;
            let value = if axis == 0 { angle.cos() } else { angle.sin() };
            let nan = unseen(run, frame, body, axis);
            array.push(&if nan { f64::NAN } else { value }).unwrap();
        }
        array.finish().unwrap();
        std::fs::write(&path, bytes).unwrap();
        lawsmith(&["import", path.to_str().unwrap(), "-o", out.to_str().unwrap(), "--overwrite"])
    };
    // The second run lacks its middle body, and its last one in the last four frames.
    let (code, document) =
        write(&|run, frame, body, _| run == 1 && (body == 1 || body == 2 && frame > 25));
    assert_eq!(code, Some(0), "{document}");
    assert!(document["notes"].to_string().contains("4 of 60 frames lack a body"), "{document}");
    let data = Dataset::open_in(&out, Units::Stored).unwrap();
    assert_eq!([0, 1].map(|run| data.bodies(run)), [3, 2]);
    assert_eq!([0, 1].map(|run| data.length(run)), [30, 26]);
    let mut features = Vec::new();
    data.features(1, 3, &mut features);
    for (row, body) in features.chunks(6).zip([0, 2]) {
        let angle = 0.1 * 3.0 + 2.0 * f64::from(body + 1);
        assert!((f64::from(row[0]) - angle.cos()).abs() < 1e-6, "{row:?}");
    }
    // A run without any body is left out.
    let (code, document) = write(&|run, _, _, _| run == 1);
    assert_eq!((code, &document["runs"]), (Some(0), &1.into()), "{document}");
    assert!(document["notes"].to_string().contains("fewer than two bodies"), "{document}");
    // Half a position is none.
    let (code, document) =
        write(&|run, frame, body, axis| (run, frame, body, axis) == (0, 2, 1, 1));
    assert_eq!(code, Some(1), "{document}");
    assert!(document["error"]["message"].as_str().unwrap().contains("NaN at element 15"));
}
