//! Embeds the commit in the binary, for `bench`; compiles each `kernels/*.cu` with nvcc into one fatbin, shared by all
//! profiles, and lists them in `$OUT_DIR/kernels.rs`; generates `$OUT_DIR/args.rs` from their argument structs.
//!
//! nvcc is looked for in NVCC, CUDA_HOME, CUDA_PATH, `target/cuda` (filled by `scripts/get-nvcc`), PATH and
//! /usr/local/cuda. Without one the build is for the CPU only and says so once; `REQUIRE_CUDA=1` makes that an error.
//! `GPU_ARCHS="90a"` shortens the list of targets, all of which must then compile. `GPU_TRAP_WAITS=1` is for the first
//! runs on a device: kernels for sm_90a that wait in vain for a barrier then end with an error after 2³¹ cycles (a good
//! second), instead of hanging.

#[path = "build/args.rs"]
mod args;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};
use std::{env, fs};

/// The targets of the fatbins, besides PTX of compute_80 for everything newer.
const ARCHS: &str = "80 86 89 90a";

fn main() {
    commit();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for name in
        ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH", "REQUIRE_CUDA", "GPU_ARCHS", "GPU_TRAP_WAITS"]
    {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-changed=build");
    // A missing path would make cargo rebuild every time; scripts/get-nvcc touches this file.
    if Path::new(FETCHED).exists() {
        println!("cargo::rerun-if-changed={FETCHED}");
    }

    let kernels = kernels();
    write_args(&kernels, &out);
    let archs = archs().unwrap_or_else(|message| panic!("{message}"));
    let nvcc = find_nvcc();
    let compiled = match &nvcc {
        Some(nvcc) => compile(nvcc, &archs, &kernels, &out).map(Some),
        None => Ok(None),
    };
    let problem = match &compiled {
        Ok(Some(_)) => None,
        Ok(None) => Some(
            "no nvcc found: this build has no CUDA kernels (scripts/get-nvcc fetches one)"
                .to_string(),
        ),
        Err(message) => Some(message.clone()),
    };
    if let Some(problem) = &problem {
        let asked_for =
            ["REQUIRE_CUDA", "GPU_ARCHS"].into_iter().any(|name| env::var_os(name).is_some());
        assert!(!asked_for, "{problem}");
        println!("cargo::warning={problem}");
    }
    let toolkit = nvcc.and_then(|nvcc| release(&nvcc)).unwrap_or(0);
    list(&kernels, compiled.ok().flatten().as_deref(), toolkit, &out);
}

/// The commit; "unknown" without git.
fn commit() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=LAWSMITH_COMMIT={commit}");
    // Changes with every commit and checkout; if it is missing only this file is watched.
    let log =
        git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|path| Path::new(path).exists());
    println!("cargo::rerun-if-changed={}", log.as_deref().unwrap_or("build.rs"));
}

const FETCHED: &str = "target/cuda/nvidia/cu13/bin/nvcc";

/// The kernel files, sorted.
fn kernels() -> Vec<PathBuf> {
    let folder = fs::read_dir("kernels").expect("the folder kernels/");
    let mut files: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "cu"));
    files.sort();
    files
}

/// `args.rs`: the argument structs of the kernels and their headers.
fn write_args(kernels: &[PathBuf], out: &Path) {
    let headers = fs::read_dir("kernels/common").expect("the folder kernels/common/");
    let headers = headers.flatten().map(|entry| entry.path());
    let files: BTreeMap<String, String> = headers
        .chain(kernels.iter().cloned())
        .map(|path| {
            let name = path.strip_prefix("kernels").expect("in kernels/").display().to_string();
            (name, fs::read_to_string(&path).expect("a readable kernel file"))
        })
        .collect();
    let text = args::rust(&files).unwrap_or_else(|message| panic!("{message}"));
    fs::write(out.join("args.rs"), text).expect("OUT_DIR can be written");
}

/// The architectures in the fatbins.
fn archs() -> Result<String, String> {
    let Ok(archs) = env::var("GPU_ARCHS") else { return Ok(ARCHS.into()) };
    if archs.trim().is_empty() {
        return Err(format!(
            "GPU_ARCHS names no architecture; leave it unset, or list some of {ARCHS}"
        ));
    }
    for arch in archs.split_whitespace() {
        let number = arch.strip_suffix(['a', 'f']).unwrap_or(arch);
        if number == "90" && arch != "90a" {
            return Err(format!(
                "GPU_ARCHS has {arch}: use 90a, without which the kernels for H100 and H200 are left out"
            ));
        }
        if !number.parse::<u32>().is_ok_and(|number| number >= 80) {
            return Err(format!(
                "GPU_ARCHS has {arch:?}: architectures are numbers from 80 on, as in {ARCHS:?}"
            ));
        }
    }
    Ok(archs)
}

/// A nonempty environment variable.
fn named(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn find_nvcc() -> Option<PathBuf> {
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(named);
    let homes = homes.map(|home| Path::new(&home).join("bin/nvcc"));
    let on_path = named("PATH").into_iter();
    let on_path = on_path.flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    named("NVCC")
        .map(PathBuf::from)
        .into_iter()
        .chain(homes)
        .chain([PathBuf::from(FETCHED)])
        .chain(on_path.map(|folder| folder.join("nvcc")))
        .chain([PathBuf::from("/usr/local/cuda/bin/nvcc")])
        .find(|path| path.is_file())
}

/// The toolkit's version in the driver's format: 12040 from "Cuda compilation tools, release 12.4, V12.4.131".
fn release(nvcc: &Path) -> Option<i32> {
    let output = Command::new(nvcc).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (major, minor) = text.split_once("release ")?.1.split_once(',')?.0.split_once('.')?;
    Some(1000 * major.parse::<i32>().ok()? + 10 * minor.parse::<i32>().ok()?)
}

/// Options that nvcc always gets, besides the targets and the files.
const FLAGS: [&str; 5] = ["-fatbin", "-std=c++20", "-O3", "-lineinfo", "-Xptxas=-v"];

/// The fatbin of each kernel, in order. Two compilers run at a time: each takes some hundred megabytes.
///
/// This script runs at every commit, for every profile and set of features; a kernel is compiled only if it, a header
/// or the compiler changed. $OUT_DIR is target/PROFILE/build/PACKAGE/out.
fn compile(
    nvcc: &Path,
    archs: &str,
    kernels: &[PathBuf],
    out: &Path,
) -> Result<Vec<PathBuf>, String> {
    let mut flags = FLAGS.to_vec();
    if named("GPU_TRAP_WAITS").is_some() {
        flags.push("-DLAWSMITH_BOUNDED_WAITS");
    }
    let store = out.ancestors().nth(4).unwrap_or(out).join("kernels");
    fs::create_dir_all(&store).map_err(|e| format!("cannot write {}: {e}", store.display()))?;
    let version = Command::new(nvcc).arg("--version").output();
    let version = version.map_err(|e| format!("{}: {e}", nvcc.display()))?;
    let fatbins = kernels.iter().map(|kernel| -> Result<PathBuf, String> {
        let unreadable = |e| format!("cannot read {}: {e}", kernel.display());
        let mut hasher = DefaultHasher::new();
        (&version.stdout, &flags, archs).hash(&mut hasher);
        hash_source(kernel, &mut hasher).map_err(unreadable)?;
        let name = kernel.file_stem().expect("a file").to_string_lossy();
        Ok(store.join(format!("{name}-{:016x}.fatbin", hasher.finish())))
    });
    let fatbins = fatbins.collect::<Result<Vec<_>, _>>()?;
    let mut queue: Vec<(&PathBuf, &PathBuf)> =
        kernels.iter().zip(&fatbins).filter(|(_, fatbin)| !fatbin.exists()).collect();
    // The longest first: the last compiler should not run alone for minutes.
    queue.sort_by_key(|(kernel, _)| fs::metadata(kernel).map_or(0, |file| file.len()));
    let queue = Mutex::new(queue);
    let work = || loop {
        let next = queue.lock().expect("no compiler panics").pop();
        let Some((kernel, fatbin)) = next else { return Ok(()) };
        let failed = |why: String| format!("{} on {}: {why}", nvcc.display(), kernel.display());
        let unfinished = fatbin.with_extension(format!("tmp{}", std::process::id()));
        let mut command = Command::new(nvcc);
        command.args(&flags).arg("-o").arg(&unfinished).arg(kernel);
        for arch in archs.split_whitespace() {
            // No kernel distinguishes 8.0, 8.6 and 8.9: one compilation to PTX serves all of these.
            let base = if arch.starts_with('8') { "80" } else { arch };
            command.arg(format!("-gencode=arch=compute_{base},code=sm_{arch}"));
        }
        command.arg("-gencode=arch=compute_80,code=compute_80");
        let output = command.output().map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            // ptxas reports on every target before the one that failed.
            let wrong = |line: &&str| line.contains("error") || line.contains("fatal");
            let lines: Vec<&str> = text.lines().filter(wrong).take(5).collect();
            return Err(failed(lines.join(" | ")));
        }
        fs::write(report(fatbin), &output.stderr).map_err(|e| failed(e.to_string()))?;
        fs::rename(&unfinished, fatbin).map_err(|e| failed(e.to_string()))?;
    };
    std::thread::scope(|scope| {
        let workers = [0, 1].map(|_| scope.spawn(work));
        workers.into_iter().try_for_each(|worker| worker.join().expect("no compiler panics"))
    })?;
    // The output of ptxas for all of them, for scripts/registers: target/PROFILE/ptxas.log.
    let said = |fatbin: &PathBuf| {
        let path = report(fatbin);
        fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))
    };
    let said = fatbins.iter().map(said).collect::<Result<Vec<_>, _>>()?.concat();
    let log = out.ancestors().nth(3).unwrap_or(out).join("ptxas.log");
    fs::write(&log, said).map_err(|e| format!("cannot write {}: {e}", log.display()))?;
    tidy(&store, &fatbins);
    // Each build has its own copy, since another build may tidy away the shared one.
    let own = kernels.iter().zip(&fatbins).map(|(kernel, fatbin)| {
        let own = out.join(kernel.file_name().expect("a file")).with_extension("fatbin");
        fs::copy(fatbin, &own).map_err(|e| format!("cannot write {}: {e}", own.display()))?;
        Ok(own)
    });
    own.collect()
}

/// Registers and spills of a compiled kernel, as ptxas reports them.
fn report(fatbin: &Path) -> PathBuf {
    fatbin.with_extension("log")
}

/// Removes what no build has used for three days; what this build uses is marked as new.
fn tidy(store: &Path, used: &[PathBuf]) {
    let now = SystemTime::now();
    for file in used.iter().flat_map(|fatbin| [fatbin.clone(), report(fatbin)]) {
        let _ = fs::File::open(file).and_then(|file| file.set_modified(now));
    }
    for entry in fs::read_dir(store).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|about| about.modified());
        let age = modified.ok().and_then(|at| now.duration_since(at).ok());
        if age.is_some_and(|age| age > Duration::from_secs(3 * 24 * 3600)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Hashes a source file and everything it includes from this folder.
fn hash_source(file: &Path, hasher: &mut DefaultHasher) -> std::io::Result<()> {
    let text = fs::read_to_string(file)?;
    text.hash(hasher);
    let folder = file.parent().unwrap_or(Path::new("."));
    let included =
        text.lines().filter_map(|line| line.strip_prefix("#include \"")?.split('"').next());
    // The stand-in driver's header is not for nvcc.
    included
        .filter(|name| !name.contains("host/"))
        .try_for_each(|name| hash_source(&folder.join(name), hasher))
}

/// `kernels.rs`: the embedded modules by name, or the names with nothing to load.
///
/// The assembler embeds them: as Rust constants all 50 MB would also be part of the crate's metadata, which takes
/// longer than everything else there.
fn list(kernels: &[PathBuf], fatbins: Option<&[PathBuf]>, toolkit: i32, out: &Path) {
    let (mut declared, mut embedded, mut modules) = (String::new(), String::new(), String::new());
    for (index, kernel) in kernels.iter().enumerate() {
        let name = kernel.file_stem().expect("a file").to_string_lossy();
        let Some(fatbins) = fatbins else {
            modules += &format!("    ({name:?}, b\"\\0\"),\n");
            continue;
        };
        let symbol = format!("lawsmith_kernels_{name}");
        let len = fs::metadata(&fatbins[index]).expect("a fatbin").len();
        // Aligned as nvcc would.
        let lines = [
            ".balign 16".to_string(),
            format!(".globl {symbol}"),
            format!(".hidden {symbol}"),
            format!("{symbol}:"),
            format!(".incbin {:?}", fatbins[index]),
        ];
        embedded += &lines.map(|line| format!("    {line:?},\n")).concat();
        declared += &format!(
            "    #[link_name = {symbol:?}]\n    safe static {}: [u8; {len}];\n",
            name.to_uppercase()
        );
        modules += &format!("    ({name:?}, &{}),\n", name.to_uppercase());
    }
    if fatbins.is_some() {
        declared = format!(
            "std::arch::global_asm!(\n    \".pushsection .rodata\",\n{embedded}    \".popsection\",\n    options(raw)\n);\n\
             // SAFETY: read-only bytes, of files of these lengths.\nunsafe extern \"C\" {{\n{declared}}}\n"
        );
    }
    let text = format!(
        "/// Whether nvcc compiled the modules.\npub(super) const COMPILED: bool = {};\n\
         /// The version of its toolkit, 13000 for 13.0.\npub(super) const TOOLKIT: i32 = {toolkit};\n\
         {declared}/// Name and fatbin of each kernel file.\n\
         static MODULES: &[(&str, &[u8])] = &[\n{modules}];\n",
        fatbins.is_some(),
    );
    fs::write(out.join("kernels.rs"), text).expect("OUT_DIR can be written");
}
