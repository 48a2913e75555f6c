use super::*;

fn file(name: &str, bytes: &[u8]) -> Result<Table> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    Table::read(&path)
}

fn csv(text: &str) -> Result<Table> {
    file("t.csv", text.as_bytes())
}

#[test]
fn csv_errors_name_field_and_row() {
    let table = csv("a,b\n1,2\n3,4e-1\n").unwrap();
    assert_eq!(table.column("b").unwrap(), &[2.0, 0.4]);
    assert!(table.column("c").unwrap_err().to_string().contains("a, b"));
    let error = csv("a,b\n1,2\n3,x\n").unwrap().column("b").map(<[f64]>::len).unwrap_err();
    assert_eq!((error.field.as_deref(), error.row), (Some("b"), Some(3)));
    let error = csv("a,b\n1,2\nNaN,3\n").unwrap().column("a").map(<[f64]>::len).unwrap_err();
    assert_eq!((error.field.as_deref(), error.row), (Some("a"), Some(3)));
    assert!(csv("a,b\n").unwrap_err().to_string().contains("no rows"));
    assert!(csv("").unwrap_err().to_string().contains("empty"));
    assert_eq!(csv("a,b\n1\n").unwrap_err().row, Some(2));
    let twice = csv("a,a\n1,2\n").unwrap().column("a").map(<[f64]>::len).unwrap_err();
    assert!(twice.to_string().contains("twice"));
}

/// The same table in every dialect.
#[test]
fn dialects_give_the_same_table() {
    let gz = |text: &str| {
        use std::io::Write;
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(text.as_bytes()).unwrap();
        out.finish().unwrap()
    };
    let utf16: Vec<u8> =
        "\u{feff}a\tb µ\n1.5\t2\n-3\t400\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin: Vec<u8> = "a,b µ\n1.5,2\n-3,400\n".chars().map(|c| c as u32 as u8).collect();
    let text = |text: &str| text.as_bytes().to_vec();
    for (name, bytes, note) in [
        ("t.csv", text("a,b µ\n1.5,2\n-3,400\n"), ""),
        ("t.csv", text("\u{feff}\"a\",\"b µ\"\r\n\"1.5\",2\r\n-3,400\r\n\r\n\r\n"), ""),
        ("t.csv", text("a;b µ\n1.5;2\n-3;400\n"), "semicolon"),
        ("t.csv", text("a;b µ\n1,5;2\n-3;400\n"), "semicolon, decimal commas"),
        ("t.csv", text("a,b µ,\n1.5,2,\n-3,400,\n"), ""),
        ("t.csv", text("a,b µ\n1.5,2,\n-3,400,\n"), ""),
        ("t.csv", text("a,b µ,\n1.5,2\n-3,400\n"), ""),
        ("t.csv", text(",a,b µ\n0,1.5,2\n1,-3,400\n"), "column 1 has no name"),
        ("t.csv", text("Unnamed: 0,a,b µ\n0,1.5,2\n1,-3,400\n"), "column 1 has no name"),
        ("t.txt", text("\"a\" \"b µ\"\n\"1\" 1.5 2\n\"2\" -3 400\n"), "column 1 has no name"),
        ("t.csv", text("# a logger\n\n# units: m\na,b µ\n1.5,2\n# pause\n-3,400\n"), ""),
        ("t.dat", text("% a \"b µ\"\n 1.5D0   2.0d+00\n -3.0\t400\n"), "blanks"),
        ("t.dat", text("# a \"b µ\"\n# of 2026\n1.5 2 \n-3 0.400-997\n"), "blanks"),
        ("t", text("a|b µ\n1.5|2\n-3|4E2\n"), "separator: |"),
        ("t.tsv", text("a\tb µ\n1.5\t2\n\u{2212}3\t400\n"), "tab"),
        ("t.tsv.gz", gz("a\tb µ\n1.5\t2\n-3\t400\n"), "tab"),
        ("t.csv", gz("a,b µ\n1.5,2\n-3,400\n"), ""),
        ("t.txt", utf16, "tab"),
        ("t.csv", latin, "Latin-1"),
    ] {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let table = file(name, &bytes).unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert_eq!(table.names, ["a", "b µ"], "{shown}");
        assert_eq!(table.column("a").unwrap(), [1.5, -3.0], "{shown}");
        if !shown.contains("-997") {
            assert_eq!(table.column("b µ").unwrap(), [2.0, 400.0], "{shown}");
        }
        let notes = table.notes.join("; ");
        assert!(notes.contains(note) && (!note.is_empty() || notes.is_empty()), "{shown}: {notes}");
    }
}

#[test]
fn without_a_header_columns_are_numbered() {
    let table = csv("1,2,NA\n3,4,5\n").unwrap();
    assert_eq!(table.names, ["x0", "x1", "x2"]);
    assert!(table.notes[0].contains("x0 to x2"), "{:?}", table.notes);
    assert_eq!(table.row_number(0), 1);
    let table = csv("Rome,41.9\nOslo,59.9\n").unwrap();
    assert_eq!((table.names.len(), table.rows()), (2, 2));
    assert_eq!(table.column("x1").unwrap(), [41.9, 59.9]);
    // What pandas writes for columns without names is a header, too.
    for text in ["0,1,2\n0.5,1,7\n", ",0,1\n0,0.5,1\n"] {
        let table = csv(text).unwrap();
        assert_eq!(
            (&table.names[..2], table.rows()),
            (&["x0".into(), "x1".into()][..], 1),
            "{text}"
        );
        assert_eq!(table.column("x0").unwrap(), [0.5], "{text}");
    }
    assert_eq!(csv("0,1,2\n3,4,5\n").unwrap().rows(), 2);
    // A word above a number is a name, and so is a number next to it.
    assert_eq!(csv("city,2020\nOslo,59.9\n").unwrap().names, ["city", "2020"]);
    assert_eq!(file("am_fm", b"0.0 1.0\n1e-3 2\n").unwrap().names, ["x0", "x1"]);
}

#[test]
fn rows_are_numbered_by_their_lines() {
    let table = csv("# x\na,b\n\n1,\"two\nlines\"\n2,x\n").unwrap();
    assert_eq!((table.row_number(0), table.row_number(1)), (4, 6));
    let error = csv("# x\na,b\n1,2\n# y\n3\n").unwrap_err();
    assert_eq!(error.row, Some(5), "{error}");
}

/// Unused columns may hold anything; missing cells are counted.
#[test]
fn cells_are_read_when_asked_for() {
    let text = "when,n,ok,x,id\n2024-01-01,1,True,NA,9007199254740993\nlater,?,no,,2\n,3,,-,3\n";
    let mut table = csv(text).unwrap();
    assert_eq!(table.values("ok").unwrap()[..2], [1.0, 0.0]);
    assert_eq!(table.values("n").unwrap()[0], 1.0);
    assert_eq!(table.cells("id").unwrap().word(0), "9007199254740993");
    let error = table.column("x").map(<[f64]>::len).unwrap_err().to_string();
    assert!(error.contains("NA where a number is needed; missing in 3 of 3 rows"), "{error}");
    let error = table.column("when").map(<[f64]>::len).unwrap_err();
    assert_eq!((error.row, error.message.contains("2024-01-01")), (Some(2), true));
    assert_eq!(table.drop_missing(&["n".into()]).unwrap(), 1);
    assert_eq!((table.column("n").unwrap(), table.row_number(1)), (&[1.0, 3.0][..], 4));
    assert!(table.drop_missing(&["x".into()]).unwrap_err().to_string().contains("every row"));
    // A yes among numbers is an error, and so is a comma among decimal points.
    assert!(csv("a\n1\nyes\n").unwrap().column("a").is_err());
    assert!(csv("a;b\n1,5;2\n3;1.5\n").unwrap().column("a").is_err());
}

#[test]
fn a_name_may_leave_out_the_unit() {
    let table = csv("x [AU],y (km/s),f(2),f(3)\n1,2,3,4\n").unwrap();
    assert_eq!(table.column("x").unwrap(), [1.0]);
    assert_eq!(table.column("y").unwrap(), [2.0]);
    assert_eq!(table.column("x [AU]").unwrap(), [1.0]);
    assert!(table.column("f").is_err(), "two columns");
    assert_eq!(name_and_unit("x [AU]"), ("x", Some("AU")));
}

#[test]
fn other_files_are_named() {
    use std::io::Write;
    let mut workbook = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    workbook.start_file("xl/workbook.xml", zip::write::FileOptions::default()).unwrap();
    workbook.write_all(b"<x/>").unwrap();
    let workbook = workbook.finish().unwrap().into_inner();
    for (name, bytes, expected) in [
        ("t.xlsx", &workbook[..], "Excel workbook: save the sheet as CSV"),
        ("t.csv", &workbook[..], "Excel workbook"),
        ("t.csv", b"PK\x03\x04....", "zip archive"),
        ("t.h5", b"\x89HDF\r\n\x1a\n\0\0", "HDF5"),
        ("t.json", b"{\"a\": [1, 2]}", "is JSON"),
        ("t.csv", b"[{\"a\": 1}]", "is JSON"),
        ("t.csv", b"<!DOCTYPE html><html>", "web page"),
        ("t.csv", b"\x80\x04\x95\0\0", "pickle"),
        ("t.csv", b"a,b\n\0\0\0\0", "binary"),
        ("t.npz", b"a,b\n1,2\n", "not a complete .npz"),
        ("t.gz", b"\x1f\x8b\x08\0\0\0", "not a complete gzip"),
    ] {
        let error = file(name, bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn thousands_of_columns() {
    let names: Vec<String> = (0..5000).map(|k| format!("c{k}")).collect();
    let row: Vec<String> = (0..5000).map(|k| k.to_string()).collect();
    let text = format!("{}\n{}\n{}\n", names.join(","), row.join(","), row.join(","));
    let table = csv(&text).unwrap();
    assert_eq!(table.column("c4999").unwrap(), [4999.0, 4999.0]);
    assert!(table.missing_column_message().len() < 400);
}

#[cfg(feature = "hdf5")]
mod hdf5 {
    use std::path::PathBuf;

    use super::*;
    use crate::store::table::Array;

    /// A file of `scripts/hdf5_fixtures.py`.
    fn fixture(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
    }

    /// All types that are read, as h5py writes them by default and in the latest format.
    #[test]
    fn arrays_of_h5py_are_read() {
        for name in ["arrays.h5", "arrays_latest.h5"] {
            let arrays = Array::read(&fixture(name)).unwrap();
            let array = |name: &str| arrays.iter().find(|a| a.name == name).unwrap();
            for kind in ["f2", "f4", "f8", "big_f4", "big_f8"] {
                assert_eq!(array(&format!("t{kind}")).values, [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5]);
            }
            for kind in ["i1", "i2", "i4", "i8", "big_i4"] {
                assert_eq!(array(&format!("t{kind}")).values, [-1.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
            }
            for kind in ["u1", "u2", "u4", "u8", "big_u2"] {
                assert_eq!(array(&format!("t{kind}")).values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
            }
            assert_eq!(array("truth").values, [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
            let words = |name: &str| array(name).words.clone().unwrap();
            assert_eq!(words("large").cell(1), "1152921504606846977", "f64 does not hold it");
            assert_eq!((words("word").cell(1), words("text").cell(1)), ("bc", "é"));
            assert_eq!(
                (&array("half").shape[..], &array("half").values[..]),
                (&[][..], &[0.5][..])
            );
            assert_eq!(array("chunked").shape, [3, 2]);
            assert_eq!(array("chunked").values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
            // If a name occurs twice, it is the whole path.
            assert_eq!((array("inner/x").values[0], array("other/x").values[0]), (10.0, 20.0));
            assert_eq!(array("y").values[0], 30.0);
            assert!(array("nothing").unreadable.is_some());
            assert!(Array::attributes(&fixture(name)).unwrap().contains(&("BoxSize".into(), 7.5)));
            if name == "arrays.h5" {
                let packed: Vec<f64> = (0..18).map(|k| f64::from(k % 6)).collect();
                assert_eq!(array("packed").values, packed);
                assert_eq!(array("lzf").values, [0.0; 600]);
            }
        }
    }

    #[test]
    fn fields_of_a_structured_array_are_columns() {
        let table = Table::read(&fixture("frame.h5")).unwrap();
        assert_eq!(table.names, ["x", "name", "v0", "v1", "y"], "without the index of pandas");
        assert_eq!(table.column("x").unwrap(), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
        assert_eq!(table.column("v1").unwrap(), [2.0; 6]);
        assert_eq!(table.column("y").unwrap(), [0.0, 1.0, 4.0, 9.0, 16.0, 25.0]);
        assert_eq!(table.cells("name").unwrap().word(2), "ab");
    }

    /// A damaged file is an error, or goes unnoticed if only numbers changed; it is never a panic.
    #[test]
    fn damaged_files_do_not_panic() {
        let whole = std::fs::read(fixture("frame.h5")).unwrap();
        for at in (9..whole.len()).step_by(37) {
            let _ = file("t.h5", &whole[..at]);
            let mut changed = whole.clone();
            changed[at] = 0xff;
            let _ = file("t.h5", &changed);
        }
        let error = file("t.h5", &whole[..whole.len() / 2]).unwrap_err().to_string();
        assert!(error.contains("t.h5"), "{error}");
    }
}
