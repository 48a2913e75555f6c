//! Bakes the commit into the binary, for `bench`; compiles each `kernels/*.cu` with nvcc into one
//! fatbin and lists them in `$OUT_DIR/kernels.rs`.
//!
//! nvcc is looked for in NVCC, CUDA_HOME, CUDA_PATH, `target/cuda` (filled by `scripts/get-nvcc`),
//! PATH and /usr/local/cuda. Without one the build is for the CPU and says so once;
//! `REQUIRE_CUDA=1` makes that an error. `GPU_ARCHS="90a"` shortens the list of targets.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What the fatbins hold code for, besides PTX of compute_80 for everything newer.
const ARCHS: &str = "80 86 89 90a";

fn main() {
    commit();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH", "REQUIRE_CUDA", "GPU_ARCHS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-changed={FETCHED}");

    let kernels = kernels();
    let compiled = match find_nvcc() {
        Some(nvcc) => compile(&nvcc, &kernels, &out).map(|()| Some(nvcc)),
        None => Ok(None),
    };
    let problem = match compiled {
        Ok(Some(_)) => None,
        Ok(None) => Some(
            "no nvcc found: this build has no CUDA kernels (scripts/get-nvcc fetches one)"
                .to_string(),
        ),
        Err(message) => Some(message),
    };
    if let Some(problem) = &problem {
        assert!(env::var_os("REQUIRE_CUDA").is_none(), "{problem}");
        println!("cargo::warning={problem}");
    }
    list(&kernels, problem.is_none(), &out);
}

/// The commit; "unknown" where there is no git.
fn commit() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=LAWSMITH_COMMIT={commit}");
    // Changes with every commit and checkout; where it is missing only this file is watched.
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

fn find_nvcc() -> Option<PathBuf> {
    let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
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

/// Two compilers at a time: each takes some hundred megabytes.
fn compile(nvcc: &Path, kernels: &[PathBuf], out: &Path) -> Result<(), String> {
    let archs = env::var("GPU_ARCHS").unwrap_or(ARCHS.into());
    // This script runs at every commit; the kernels are compiled when they or the compiler changed.
    let stamp = out.join("kernels.stamp");
    let sources = fingerprint(nvcc, &archs).map_err(|e| format!("cannot read kernels/: {e}"))?;
    if fs::read_to_string(&stamp).is_ok_and(|found| found == sources) {
        return Ok(());
    }
    for pair in kernels.chunks(2) {
        let started: Vec<_> = pair
            .iter()
            .map(|kernel| {
                let mut command = Command::new(nvcc);
                command.args(["-fatbin", "-std=c++20", "-O3", "-lineinfo", "-o"]);
                command.arg(fatbin(out, kernel)).arg(kernel);
                for arch in archs.split_whitespace() {
                    command.arg(format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
                }
                command.arg("-gencode=arch=compute_80,code=compute_80");
                command.stdout(std::process::Stdio::piped());
                command.stderr(std::process::Stdio::piped());
                (kernel, command.spawn())
            })
            .collect();
        for (kernel, child) in started {
            let failed = |why: String| format!("{} on {}: {why}", nvcc.display(), kernel.display());
            let child = child.map_err(|e| failed(e.to_string()))?;
            let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr);
                return Err(failed(text.lines().take(5).collect::<Vec<_>>().join(" | ")));
            }
        }
    }
    fs::write(&stamp, sources).map_err(|e| format!("cannot write {}: {e}", stamp.display()))
}

/// Everything that the fatbins are made from.
fn fingerprint(nvcc: &Path, archs: &str) -> std::io::Result<String> {
    let mut hasher = DefaultHasher::new();
    (nvcc, archs).hash(&mut hasher);
    for folder in ["kernels", "kernels/common"] {
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.is_file()) {
            (file, fs::read(file)?).hash(&mut hasher);
        }
    }
    Ok(format!("{:x}", hasher.finish()))
}

fn fatbin(out: &Path, kernel: &Path) -> PathBuf {
    out.join(kernel.file_name().expect("a file")).with_extension("fatbin")
}

/// `kernels.rs`: the embedded modules by name, or the names with nothing to load.
fn list(kernels: &[PathBuf], compiled: bool, out: &Path) {
    let module = |kernel: &PathBuf| {
        let name = kernel.file_stem().expect("a file").to_string_lossy();
        let image = match compiled {
            true => format!("include_bytes!({:?})", fatbin(out, kernel)),
            false => "b\"\\0\"".to_string(),
        };
        format!("    ({name:?}, {image}),\n")
    };
    let modules: String = kernels.iter().map(module).collect();
    let text = format!(
        "/// Whether nvcc compiled the modules.\npub(super) const COMPILED: bool = {compiled};\n\
         /// Name and fatbin of each kernel file.\n\
         pub(super) static MODULES: &[(&str, &[u8])] = &[\n{modules}];\n"
    );
    fs::write(out.join("kernels.rs"), text).expect("OUT_DIR can be written");
}
