//! Generates the Rust twins of the kernels' argument structs from the C++ ones.
//!
//! A struct in `kernels/` followed by a line `LAYOUT(Struct, every, field)` is an argument of a kernel, or an element
//! of a buffer that kernels read. It becomes a `repr(C)` struct of the same name in `device::args`; its comments become
//! the docs. A test compares sizes and offsets with those of a C++ compiler (`device/tests.rs`).

use std::collections::BTreeMap;
use std::fmt::Write;

/// A Rust type and its size in memory.
#[derive(Clone)]
struct Type {
    name: String,
    size: usize,
    align: usize,
}

/// A field: its name, type and comment.
struct Field {
    name: String,
    of: Type,
    comment: String,
}

fn number(name: &str, size: usize) -> Type {
    Type { name: name.into(), size, align: size }
}

/// The Rust types of C++ numbers and pointers.
fn scalar(cpp: &str, structs: &[&str], enums: &[&str]) -> Result<Type, String> {
    if let Some(pointee) = cpp.strip_suffix('*') {
        let pointee = match pointee.trim_start_matches("const ").trim() {
            "void" => "u8",
            "float" => "f32",
            "double" => "f64",
            "unsigned" => "u32",
            "unsigned short" | "uint16_t" => "u16",
            "unsigned long long" | "uint64_t" => "u64",
            "Bf16" => "bf16",
            "float4" => "[f32; 4]",
            "uint4" => "[u32; 4]",
            other if structs.contains(&other) => other,
            other => {
                return Err(format!("points to {other}, which is not a known type"));
            }
        };
        return Ok(Type { name: format!("Pointer<{pointee}>"), size: 8, align: 8 });
    }
    match cpp {
        "unsigned" => Ok(number("u32", 4)),
        "float" => Ok(number("f32", 4)),
        "double" => Ok(number("f64", 8)),
        "unsigned long long" | "uint64_t" => Ok(number("u64", 8)),
        other if enums.contains(&other) => Ok(number("u32", 4)),
        other => Err(format!("has type {other}, which is unknown here")),
    }
}

/// The fields of a line `type a, b[3];  // comment`; none for a line with a comment only.
fn fields(line: &str, structs: &[&str], enums: &[&str]) -> Result<Vec<Field>, String> {
    let (code, comment) = line.split_once("//").unwrap_or((line, ""));
    let code = code.trim();
    if code.is_empty() {
        return Ok(Vec::new());
    }
    let code = code.strip_suffix(';').ok_or("a line of a struct is one declaration, ended by ;")?;
    let names = code.find(',').unwrap_or(code.len());
    let begin = code[..names].rfind([' ', '*']).ok_or("a declaration is a type and a name")? + 1;
    let (cpp, names) = code.split_at(begin);
    names
        .split(',')
        .map(|declared| {
            let declared = declared.trim();
            let (name, count) = match declared.split_once('[') {
                Some((name, rest)) => (name, Some(rest.trim_end_matches(']'))),
                None => (declared, None),
            };
            let mut of =
                scalar(cpp.trim(), structs, enums).map_err(|why| format!("{name} {why}"))?;
            if let Some(count) = count {
                let times: usize = count
                    .parse()
                    .map_err(|_| format!("{name} has {count} elements: write a number"))?;
                of.size *= times;
                of.name = format!("[{}; {times}]", of.name);
            }
            Ok(Field { name: name.into(), of, comment: comment.trim().into() })
        })
        .collect()
}

/// The first word after each of these prefixes at the start of a line.
fn named<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let word = |line: &'a str| line.split(|c: char| !c.is_alphanumeric() && c != '_').next();
    text.lines().filter_map(|line| word(line.strip_prefix(prefix)?)).collect()
}

/// The comment above the struct `name`, and what is between its opening line and the next `};`.
fn body<'a>(text: &'a str, name: &str) -> Option<(String, &'a str)> {
    let head = format!("struct {name} {{\n");
    let at = match text.starts_with(&head) {
        true => 0,
        false => text.find(&format!("\n{head}"))? + 1,
    };
    let above: Vec<&str> =
        text[..at].lines().rev().map_while(|line| line.strip_prefix("//")).collect();
    let comment = above.iter().rev().map(|line| line.trim()).collect::<Vec<_>>().join("\n");
    let rest = &text[at + head.len()..];
    Some((comment, &rest[..rest.find("\n};")? + 1]))
}

/// The comment as `#[doc]` attributes.
fn doc(comment: &str, indent: &str) -> String {
    comment.lines().map(|line| format!("{indent}#[doc = {line:?}]\n")).collect()
}

/// The module `device::args` for these C++ files, given by name.
///
/// # Errors
/// A missing struct, an unknown type, a field that `LAYOUT` does not list, padding: one sentence with the struct's
/// name.
pub fn rust(files: &BTreeMap<String, String>) -> Result<String, String> {
    let all = |prefix: &str| -> Vec<&str> {
        files.values().flat_map(|text| named(text, prefix)).collect()
    };
    let enums = all("enum class ");
    let mut laid_out: BTreeMap<&str, &str> = BTreeMap::new();
    for text in files.values() {
        for listed in text.split("\nLAYOUT(").skip(1) {
            let inside = listed.split(')').next().unwrap_or("");
            let (name, fields) = inside.split_once(',').unwrap_or((inside, ""));
            laid_out.insert(name, fields);
        }
    }
    let structs: Vec<&str> = laid_out.keys().copied().collect();
    let (mut code, mut layouts) = (String::new(), String::new());
    for (name, listed) in &laid_out {
        let failed = |why: String| format!("{name} of the kernels: {why}");
        let (file, (comment, body)) = files
            .iter()
            .find_map(|(file, text)| Some((file, body(text, name)?)))
            .ok_or_else(|| failed("LAYOUT names it, but no file declares it".into()))?;
        let mut found = Vec::new();
        for line in body.lines() {
            found.extend(fields(line, &structs, &enums).map_err(failed)?);
        }
        let listed: Vec<&str> = listed.split(',').map(str::trim).collect();
        let declared: Vec<&str> = found.iter().map(|field| &*field.name).collect();
        if listed != declared {
            return Err(failed(format!("LAYOUT lists {listed:?}, the struct has {declared:?}")));
        }
        let (mut offset, mut align) = (0, 1);
        for Field { name, of, .. } in &found {
            if offset % of.align != 0 {
                return Err(failed(format!("there is padding before {name}")));
            }
            (offset, align) = (offset + of.size, align.max(of.align));
        }
        if offset % align != 0 {
            return Err(failed("there is padding at the end: add a field `unused`".into()));
        }
        code += &doc(&comment, "");
        let _ = write!(
            code,
            "#[doc = \"\"]\n#[doc = \"From `kernels/{file}`.\"]\n#[derive(Clone, Copy)]\n#[repr(C)]\npub(crate) struct {name} {{\n"
        );
        layouts += &format!("    ({name:?}, size_of::<{name}>(), &[\n");
        for Field { name: field, of, comment } in &found {
            code += &doc(comment, "    ");
            code += &format!("    pub(crate) {field}: {},\n", of.name);
            layouts += &format!(
                "        ({field:?}, std::mem::offset_of!({name}, {field}), size_of::<{}>()),\n",
                of.name
            );
        }
        let _ = write!(
            code,
            "}}\n\n// SAFETY: addresses and numbers without padding, for which any bits are a value.\n\
             unsafe impl Zeroable for {name} {{}}\n// SAFETY: as above.\nunsafe impl Pod for {name} {{}}\n\
             impl Args for {name} {{}}\n\n"
        );
        layouts += "    ]),\n";
    }
    Ok(format!(
        "{code}/// Name, size and fields (name, offset, size) of each struct.\n#[cfg(test)]\n\
         pub(super) const LAYOUTS: &[Layout] = &[\n{layouts}];\n"
    ))
}
