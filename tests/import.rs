//! `lawsmith import` through the command line.

use std::path::Path;

use assert_cmd::Command;
use lawsmith::nbody::dataset::Dataset;
use lawsmith::store::table::Table;
use lawsmith::store::tensors::{TensorSpec, TensorWriter};
use serde_json::Value;

fn lawsmith(arguments: &[&str]) -> (Option<i32>, Value) {
    let output =
        Command::cargo_bin("lawsmith").unwrap().args(["--json", "-q"]).args(arguments).output();
    let output = output.unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {output:?}");
    });
    (output.status.code(), document)
}

/// Writes the trajectories as a table, columns as asked for, rows back to front.
fn table(data: &Dataset, path: &Path, all: bool, noise: f64) {
    let about = &data.about;
    let axes = &["x", "y", "z"][..about.dim];
    let mut header = vec!["run".to_string(), "time".into(), "body".into()];
    header.extend(axes.iter().map(|d| d.to_string()));
    if all {
        header.extend(axes.iter().map(|d| format!("v{d}")));
        header.extend(axes.iter().map(|d| format!("a{d}")));
        header.extend(["mass".into(), "charge".into()]);
    }
    let mut random = lawsmith::random::Random::new(1, 1);
    let mut rows = Vec::new();
    for run in 0..about.runs {
        for frame in 0..about.frames {
            for body in 0..about.bodies {
                let at = ((run * about.frames + frame) * about.bodies + body) * about.dim;
                let part = |values: &[f32]| values[at..at + about.dim].to_vec();
                let mut row = vec![run as f64, data.times()[frame], (10 * body) as f64];
                let x = part(data.positions());
                row.extend(x.iter().map(|x| f64::from(*x) + noise * random.normal()));
                if all {
                    let rest = [part(data.velocities()), part(data.accelerations())].concat();
                    row.extend(rest.iter().map(|v| f64::from(*v)));
                    let matter = run * about.bodies + body;
                    row.push(data.masses()[matter].into());
                    row.push(data.charges()[matter].into());
                }
                let cells: Vec<String> = row.iter().map(f64::to_string).collect();
                rows.push(cells.join(","));
            }
        }
    }
    rows.push(header.join(","));
    rows.reverse();
    std::fs::write(path, rows.join("\n") + "\n").unwrap();
}

fn simulated(folder: &Path, arguments: &[&str]) -> Dataset {
    let path = folder.join("truth.safetensors");
    let mut all = vec!["simulate", "-o", path.to_str().unwrap(), "--overwrite"];
    all.extend(arguments);
    let (code, document) = lawsmith(&all);
    assert_eq!(code, Some(0), "{document}");
    Dataset::open(&path).unwrap()
}

/// A small set of trajectories with everything in it, as `t.csv` and as a table.
fn full_table(folder: &Path) -> (Dataset, Table) {
    let truth =
        simulated(folder, &["--dim", "3", "--bodies", "3", "--runs", "5", "--frames", "20"]);
    let csv = folder.join("t.csv");
    table(&truth, &csv, true, 0.0);
    (truth, Table::read(&csv).unwrap())
}

/// Imports a table and compares with the dataset that it was written from, bit for bit.
fn comes_back(truth: &Dataset, from: &Path) {
    let out = from.with_extension("out");
    let arguments = ["import", from.to_str().unwrap(), "-o", out.to_str().unwrap()];
    let (code, document) = lawsmith(&arguments);
    assert_eq!(code, Some(0), "{document}");
    assert_eq!(document["made"], serde_json::json!([]));
    assert!(document["acceleration_error"].is_null());
    let data = Dataset::open(&out).unwrap();
    assert!(data.about.law.is_none());
    assert_eq!(data.positions(), truth.positions());
    assert_eq!(data.velocities(), truth.velocities());
    assert_eq!(data.accelerations(), truth.accelerations());
    assert_eq!(data.masses(), truth.masses());
    assert_eq!(data.charges(), truth.charges());
    assert_eq!(data.times(), truth.times());
    // A second time it is in the way.
    let (code, document) = lawsmith(&arguments);
    assert_eq!(code, Some(2));
    assert!(document["error"]["message"].as_str().unwrap().contains("--overwrite"));
}

#[test]
fn a_full_table_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (truth, _) = full_table(folder.path());
    comes_back(&truth, &folder.path().join("t.csv"));
}

/// Positions only, with noise of known size: the noise is found, and the accelerations are as wrong
/// as the error bar says.
#[test]
fn positions_alone_give_accelerations_within_their_error_bars() {
    let folder = tempfile::tempdir().unwrap();
    // Harmonic, without a kink where bodies meet: what the fit leaves over is noise.
    let arguments = ["--potential", "0.1*m1*m2*(r - 0.01)^2", "--dt", "0.01"];
    let truth =
        simulated(folder.path(), &[&arguments[..], &["--runs", "30", "--frames", "60"]].concat());
    let [csv, out] = ["t.csv", "t.safetensors"].map(|name| folder.path().join(name));
    for noise in [1e-5, 1e-4, 1e-3] {
        table(&truth, &csv, false, noise);
        let (code, document) = lawsmith(&[
            "import",
            csv.to_str().unwrap(),
            "-o",
            out.to_str().unwrap(),
            "--overwrite",
            "--order",
            "5",
            "--window",
            "15",
        ]);
        assert_eq!(code, Some(0), "{document}");
        assert_eq!(
            document["made"],
            serde_json::json!(["velocities", "accelerations", "mass", "charge"])
        );
        let found = document["position_noise"].as_f64().unwrap();
        assert!((0.95..1.1).contains(&(found / noise)), "{found} {noise}");
        let bar = &document["acceleration_error"];
        let (median, max) = (bar["median"].as_f64().unwrap(), bar["max"].as_f64().unwrap());
        let data = Dataset::open(&out).unwrap();
        assert_eq!(data.about.origin["acceleration_error"]["median"], bar["median"]);
        let errors = data.accelerations().iter().zip(truth.accelerations());
        let mut errors: Vec<f64> = errors.map(|(a, b)| f64::from((a - b).abs())).collect();
        errors.sort_by(f64::total_cmp);
        // Half of normal errors are below 0.67 standard deviations. The bars vary along a run, by a
        // factor of ten towards its ends, so the medians need only agree roughly.
        let ratio = errors[errors.len() / 2] / median;
        assert!((0.3..1.2).contains(&ratio), "noise {noise}: median error {ratio} of its bar");
        let worst = errors[errors.len() - 1];
        assert!(worst < 5.0 * max, "noise {noise}: {worst} with a bar of {max}");
        assert!(data.masses().iter().all(|m| *m == 1.0));
        assert!(data.charges().iter().all(|q| *q == 0.0));
    }
}

/// Times need not be equidistant.
#[test]
fn uneven_times() {
    let folder = tempfile::tempdir().unwrap();
    let [csv, out] = ["t.csv", "t.safetensors"].map(|name| folder.path().join(name));
    let mut text = "body,y,x,time,run\n".to_string();
    for k in 0..40 {
        let t = 0.05 * f64::from(k) + 0.01 * (f64::from(k) * 0.7).sin();
        for body in 0..2 {
            let phase = f64::from(body);
            text += &format!("{body},{},{},{t},3\n", (t + phase).cos(), (t + phase).sin());
        }
    }
    std::fs::write(&csv, text).unwrap();
    let (code, document) =
        lawsmith(&["import", csv.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{document}");
    let data = Dataset::open(&out).unwrap();
    // On the unit circle at unit speed a = −r.
    for (at, (a, r)) in data.accelerations().iter().zip(data.positions()).enumerate() {
        let limit = if (16..144).contains(&at) { 2e-4 } else { 3e-2 };
        assert!((a + r).abs() < limit, "{at}: {a} {r}");
    }
}

#[test]
fn bad_tables_are_refused_with_field_and_row() {
    let folder = tempfile::tempdir().unwrap();
    let [csv, out] = ["t.csv", "t.safetensors"].map(|name| folder.path().join(name));
    let header = "run,time,body,x,y\n";
    let good = "0,0,0,1,2\n0,0,1,3,4\n0,1,0,1,2\n0,1,1,3,4\n";
    let with = |rows: &str| format!("{header}{rows}");
    let velocities = |rest: &str| format!("run,time,body,x,y,vx,vy,ax,ay{rest}");
    for (text, field, row, expected) in [
        (String::new(), None, None, "empty"),
        (header.to_string(), None, None, "no rows"),
        ("run,time,body,x\n0,0,0,1\n".into(), Some("y"), None, "no such column"),
        ("run,time,x,y\n0,0,0,1\n".into(), Some("body"), None, "no such column"),
        (with("0,0,0,1,2\n0,0,1,three,4\n"), Some("x"), Some(3), "'three'"),
        (with("0,0,0,1,2\n0,0,1,3,nan\n"), Some("y"), Some(3), "NaN"),
        (with("0,0,0,1,2\n0,0,1,3,inf\n"), Some("y"), Some(3), "inf"),
        (with("0,0,0,1,2\n0,0,1,3,\n"), Some("y"), Some(3), "number"),
        (with("0,0,0,1,2\n0,0,1,3"), None, Some(3), "CSV"),
        (with("0,0,0,1,2\n0,0,1,1e300,0\n"), Some("x"), Some(3), "too large"),
        (with("0,0,0.5,1,2\n"), Some("body"), Some(2), "whole number"),
        (with("0,0,0,1,2\n0,1,0,1,2\n"), Some("body"), Some(2), "only one body"),
        (with(&format!("{good}0,1,0,1,2\n")), Some("body"), Some(6), "row 4 already"),
        (with(&format!("{good}1,0,0,1,2\n1,7,0,1,2\n")), Some("time"), Some(7), "share times"),
        (with(&format!("{good}1,0,2,1,2\n")), Some("body"), Some(6), "share bodies"),
        (with(&format!("{good}1,0,0,1,2\n")), Some("time"), Some(6), "no row for"),
        (with(good), Some("time"), None, "too few"),
        (velocities("\n0,0,0,1,2,0,0,0\n"), None, Some(2), "CSV"),
        ("run,time,body,x,y,vx\n0,0,0,1,2,0\n0,0,1,3,4,0\n".into(), Some("vy"), None, "no such"),
        (
            velocities(",mass\n0,0,0,1,2,0,0,0,0,1\n0,0,1,3,4,0,0,0,0,-1\n"),
            Some("mass"),
            Some(3),
            "positive",
        ),
        (
            velocities(
                ",charge\n0,0,0,1,2,0,0,0,0,1\n0,0,1,3,4,0,0,0,0,1\n\
                 0,1,0,1,2,0,0,0,0,1\n0,1,1,3,4,0,0,0,0,2\n",
            ),
            Some("charge"),
            Some(5),
            "changes with time",
        ),
    ] {
        std::fs::write(&csv, &text).unwrap();
        let (code, document) =
            lawsmith(&["import", csv.to_str().unwrap(), "-o", out.to_str().unwrap()]);
        let error = &document["error"];
        assert_eq!(code, Some(1), "{text}: {document}");
        assert!(error["message"].as_str().unwrap().contains(expected), "{text}: {document}");
        assert_eq!(error["field"].as_str(), field, "{text}: {document}");
        assert_eq!(error["row"].as_u64(), row, "{text}: {document}");
        assert!(error["file"].as_str().unwrap().ends_with("t.csv"), "{document}");
        assert!(!out.exists(), "{text}");
    }
    for (arguments, expected) in [(["--order", "1"], "order 2"), (["--window", "5"], "at least 6")]
    {
        std::fs::write(&csv, with(good)).unwrap();
        let paths = ["import", csv.to_str().unwrap(), "-o", out.to_str().unwrap()];
        let (code, document) = lawsmith(&[&paths[..], &arguments].concat());
        assert_eq!(code, Some(2));
        assert!(document["error"]["message"].as_str().unwrap().contains(expected), "{document}");
    }
}

/// Writes a table as an `.npz` with one array for each column.
fn npz(table: &Table, path: &Path) {
    use npyz::WriterBuilder;
    use std::io::Write;
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (index, (name, column)) in table.names.iter().zip(&table.columns).enumerate() {
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
        for (name, column) in table.names.iter().zip(&table.columns) {
            let values = &column[rows.clone()];
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
    let table = Table { names: names.clone(), columns, ..Table::default() };
    let archive = folder.path().join("t.npz");
    npz(&table, &archive);
    let tensors = folder.path().join("t.safetensors");
    let specs: Vec<TensorSpec> = names.iter().map(|name| TensorSpec::f64(name, &[3])).collect();
    let mut writer =
        TensorWriter::create(&tensors, "table", serde_json::json!({}), &specs).unwrap();
    for (name, column) in names.iter().zip(&table.columns) {
        writer.slice::<f64>(name).copy_from_slice(column);
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
    let (truth, mut table) = full_table(folder.path());
    let path = folder.path().join("t.parquet");
    parquet(&table, &path);
    comes_back(&truth, &path);
    refused_where_truncated(&path);

    let column = table.find("vy").unwrap();
    table.columns[column][250] = f64::NAN;
    parquet(&table, &path);
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
    parquet(&Table { names, columns, ..Table::default() }, &path);
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
